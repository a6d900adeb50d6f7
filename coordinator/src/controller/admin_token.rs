//! Admin token from its file, at the start.

use super::{Controller, ControllerError};
use crate::registry::AdminToken;

impl Controller {
    /// Makes the text of the file `admin.token` a valid token, in the place of the one before. False if it was revoked.
    pub async fn adopt_admin_token(&mut self, text: &str) -> Result<bool, ControllerError> {
        match self.state.registry.admin_token(text, self.time) {
            AdminToken::Valid => Ok(true),
            AdminToken::Revoked => Ok(false),
            AdminToken::New(rows) => self.commit(rows).await.map(|()| true),
        }
    }

    /// True if the last admin token was revoked.
    pub fn has_no_admin_token(&self) -> bool {
        self.state.registry.has_no_admin_token()
    }
}

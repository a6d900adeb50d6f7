//! Query parameters that several paths take.

use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ForceQuery {
    /// Remove it even if external clients or scopes use it: they are cut off.
    #[serde(default)]
    pub(super) force: bool,
}

/// Query parameter that names one network; none means all.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NetworkQuery {
    /// Name or id of the only network.
    #[allow(dead_code)] // Read by `Caller`, which checks that it may be seen.
    pub(super) network: Option<String>,
}

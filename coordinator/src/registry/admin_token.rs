//! Admin token from the file `admin.token` of the coordinator's directory: a token like any other, that root on the machine
//! can make anew. A revoked one is kept, so that its file stays without effect.

use super::{Changes, Registry, Row, Token, TokenId, token::Rights, token_hash};

/// Name of the admin token, for the audit log too.
pub const ADMIN_TOKEN_NAME: &str = "admin.token";

/// Effect of the text in the file `admin.token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// It is valid.
    Valid,
    /// It was revoked, or replaced by another.
    Revoked,
    /// It was never seen: with these rows it takes the place of the one before.
    New(Changes),
}

impl Registry {
    /// Effect of the text in the file `admin.token`.
    pub fn admin_token(&self, text: &str, now: u64) -> AdminToken {
        let hash = token_hash(text);
        let id = TokenId::of(&hash);
        match self.tokens.get(&id).filter(|token| token.hash == hash) {
            Some(token) if token.holds(now) => return AdminToken::Valid,
            Some(_) => return AdminToken::Revoked,
            None => {}
        }
        let before = self.tokens().filter(|token| token.is_admin_token());
        let before = before.map(|token| Row::Token(token.id.clone(), Some(token.revoked_at(now))));
        let token = Token {
            id: id.clone(),
            name: ADMIN_TOKEN_NAME.to_owned(),
            hash,
            rights: Rights::Admin,
            net: None,
            created: now,
            expires: None,
            expired: None,
            revoked: None,
        };
        AdminToken::New(before.chain([Row::Token(id, Some(token))]).collect())
    }

    /// True if the last admin token was revoked.
    pub fn has_no_admin_token(&self) -> bool {
        let mut all = self.tokens.values().filter(|token| token.is_admin_token()).peekable();
        all.peek().is_some() && all.all(|token| token.revoked.is_some())
    }
}

impl Token {
    /// True for the token from the file `admin.token`.
    pub fn is_admin_token(&self) -> bool {
        self.name == ADMIN_TOKEN_NAME
    }

    pub(super) fn revoked_at(&self, now: u64) -> Self {
        Self { revoked: Some(now), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Moment;

    const MOMENT: Moment = Moment { now: 1000, entropy: [1; 32] };

    fn adopt(registry: &mut Registry, text: &str) {
        let AdminToken::New(rows) = registry.admin_token(text, 1000) else { panic!("{text} is known") };
        registry.apply(rows);
    }

    #[test]
    fn revoked_admin_token_stays_revoked_beside_a_new_one() {
        let mut registry = Registry::default();
        assert!(!registry.has_no_admin_token(), "there was none");
        adopt(&mut registry, "first");
        assert_eq!(registry.admin_token("first", 2000), AdminToken::Valid);
        assert_eq!(registry.find_token(ADMIN_TOKEN_NAME).unwrap().rights, Rights::Admin);
        registry.apply(registry.revoke_token(ADMIN_TOKEN_NAME, &MOMENT).unwrap().0);
        assert!(registry.has_no_admin_token() && registry.token_of("first", 1000).is_none());
        assert_eq!((registry.tokens().count(), registry.admin_token("first", 0)), (0, AdminToken::Revoked));
        adopt(&mut registry, "second");
        assert!(!registry.has_no_admin_token());
        assert_eq!(registry.admin_token("first", 1000), AdminToken::Revoked);
    }

    #[test]
    fn new_admin_token_replaces_the_one_before() {
        let mut registry = Registry::default();
        adopt(&mut registry, "first");
        adopt(&mut registry, "second");
        let ids: Vec<_> = registry.tokens().map(|token| token.id.clone()).collect();
        assert_eq!(ids, [TokenId::of(&token_hash("second"))]);
        assert!(registry.token_of("first", 1000).is_none() && registry.token_of("second", 1000).is_some());
    }
}

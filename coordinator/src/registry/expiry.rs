//! Expiry of tokens, join codes and external clients. It is carried out once, as a change like any other: what has expired
//! keeps when it did, and stays expired if the clock goes back. Only a new expiry, set by an admin, lets a client in
//! again.

use super::{Changes, Client, Code, Registry, Row, Token};

impl Registry {
    /// Lets everything expire whose expiry time is not later than `now`.
    pub fn expire(&self, now: u64) -> Changes {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let expired = Some(now);
        let tokens = self.tokens.values().filter(|token| is_due(token.waits_for()));
        let tokens =
            tokens.map(|token| Row::Token(token.id.clone(), Some(Token { expired, ..token.clone() })));
        let codes = self.codes.values().filter(|code| is_due(code.waits_for()));
        let codes = codes.map(|code| Row::Code(code.id.clone(), Some(Code { expired, ..code.clone() })));
        let clients = self.clients.values().filter(|client| is_due(client.waits_for()));
        let clients = clients.map(|client| Client { expired, ..client.clone() }.row());
        tokens.chain(codes).chain(clients).collect()
    }

    /// Time at which something expires next; none if nothing will.
    pub fn next_expiry(&self) -> Option<u64> {
        let tokens = self.tokens.values().filter_map(Token::waits_for);
        let codes = self.codes.values().filter_map(Code::waits_for);
        let clients = self.clients.values().filter_map(Client::waits_for);
        tokens.chain(codes).chain(clients).min()
    }
}

impl Token {
    /// Time at which it will expire.
    fn waits_for(&self) -> Option<u64> {
        self.expires.filter(|_| self.expired.is_none() && self.revoked.is_none())
    }
}

impl Code {
    /// Time at which it will expire; none if it can't be used anyway.
    fn waits_for(&self) -> Option<u64> {
        let is_usable = self.expired.is_none() && self.revoked.is_none() && self.used < self.uses;
        is_usable.then_some(self.expires)
    }
}

impl Client {
    /// Time at which it will expire.
    fn waits_for(&self) -> Option<u64> {
        self.expires.filter(|_| self.expired.is_none() && self.is_live())
    }
}

//! Whose Internet traffic goes through which exit: from what is asked (by the router's owner, else by the
//! coordinator) and who works, to what becomes of each scope. How that looks in a kernel is
//! [`desired`](super::desired)'s matter.

use super::{Network, gateways::Service};
use crate::config::Config;
use gatewrt_protocol::{ExitScope, Failure, Member, NetworkName, NodeId, ScopeState};

/// A scope and what becomes of it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// What is asked.
    pub asked: ExitScope,
    /// What becomes of it.
    pub state: ScopeState,
    /// The exit in use.
    pub exit: Option<NodeId>,
    /// The exit in use leads to the IPv6 Internet.
    pub v6: bool,
}

/// The scopes of one network: what is asked of it. Goes by what the router's owner says, where that says anything, and
/// else by the coordinator's assignment. Names of exits are resolved; what can't be done is told.
pub fn asked(
    _config: &Config,
    _name: &NetworkName,
    network: &Network,
    _failures: &mut Vec<Failure>,
) -> Vec<ExitScope> {
    network.directory.assignment().map(|assignment| assignment.scopes.clone()).unwrap_or_default()
}

/// What becomes of each scope now, as [`Gateways`](super::gateways::Gateways) chose.
pub fn scopes(asked: Vec<ExitScope>, network: &Network) -> Vec<Scope> {
    asked.into_iter().map(|asked| scope(asked, network)).collect()
}

fn scope(asked: ExitScope, network: &Network) -> Scope {
    let exit = network.gateways.choice(&Service::Scope(asked.name.clone()));
    let member = |node: NodeId| network.directory.peers().find(|member| member.node == node);
    let offer = |member: &Member| member.exit.as_ref().is_some_and(|offer| offer.v6);
    let v6 = exit.and_then(member).is_some_and(offer);
    let state = match (exit, asked.open) {
        (Some(_), _) => ScopeState::Exit,
        (None, false) => ScopeState::Blocked,
        (None, true) => ScopeState::Wan,
    };
    Scope { asked, state, exit, v6 }
}

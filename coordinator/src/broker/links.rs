//! Open links between the front and the engine, by the source address that the engine sees.

use gatewrt_protocol::PublicKey;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
};
use tokio::sync::oneshot;

/// Open links between routers and the engine, by the source address that the engine sees. Removing a link closes it.
pub(super) struct Links {
    per_node: usize,
    open: Mutex<BTreeMap<SocketAddr, Link>>,
}

struct Link {
    owner: Owner,
    admitted: bool,
    /// Closes the link when it is dropped; never sent on.
    _close: oneshot::Sender<()>,
}

/// Owner of a link: the node, as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Id of the node.
    pub(super) node: String,
    /// Address of its router.
    pub(super) peer: SocketAddr,
    /// Identity key in its certificate, if that is an Ed25519 key.
    pub(super) identity: Option<PublicKey>,
}

impl Links {
    pub(super) fn new(per_node: usize) -> Self {
        Self { per_node, open: Mutex::default() }
    }

    /// Owner of a link.
    pub(super) fn owner(&self, link: SocketAddr) -> Option<Owner> {
        self.open().get(&link).map(|link| link.owner.clone())
    }

    /// Closes all links of a node but the newest. When a router reconnects, its older connection is dead,
    /// whatever TCP says.
    pub(super) fn close_older(&self, node: &str, newest: SocketAddr) {
        self.open().retain(|at, link| link.owner.node != node || *at == newest);
    }

    /// Marks a link as admitted: the engine has accepted its session.
    pub(super) fn admit(&self, link: SocketAddr) {
        if let Some(link) = self.open().get_mut(&link) {
            link.admitted = true;
        }
    }

    /// Closes every link of a node.
    pub(super) fn close(&self, node: &str) {
        self.open().retain(|_, link| link.owner.node != node);
    }

    /// Closes every link.
    pub(super) fn close_all(&self) {
        self.open().clear();
    }

    /// Adds a link of a node. Returns `None` if the node has as many as allowed.
    pub(super) fn add(&self, at: SocketAddr, owner: Owner) -> Option<oneshot::Receiver<()>> {
        let mut open = self.open();
        if open.values().filter(|link| link.owner.node == owner.node).count() >= self.per_node {
            return None;
        }
        let (close, closed) = oneshot::channel();
        open.insert(at, Link { owner, admitted: false, _close: close });
        Some(closed)
    }

    pub(super) fn is_admitted(&self, link: SocketAddr) -> bool {
        self.open().get(&link).is_some_and(|link| link.admitted)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Link>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

/// Guard of a link: removes the link from the table before its source address can be reused.
pub(super) struct OpenLink<'a> {
    pub(super) links: &'a Links,
    pub(super) at: SocketAddr,
}

impl Drop for OpenLink<'_> {
    fn drop(&mut self) {
        self.links.open().remove(&self.at);
    }
}

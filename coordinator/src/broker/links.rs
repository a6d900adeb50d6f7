//! Open links between the front and the engine, by the source address that the engine sees.

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
    node: String,
    peer: SocketAddr,
    admitted: bool,
    /// Closes the link when it is dropped; never sent on.
    _close: oneshot::Sender<()>,
}

impl Links {
    pub(super) fn new(per_node: usize) -> Self {
        Self { per_node, open: Mutex::default() }
    }

    /// Id of the node that a link belongs to, and the address of its router.
    pub(super) fn owner(&self, link: SocketAddr) -> Option<(String, SocketAddr)> {
        self.open().get(&link).map(|link| (link.node.clone(), link.peer))
    }

    /// Closes all links of a node but the newest. When a router reconnects, its older connection is dead,
    /// whatever TCP says.
    pub(super) fn close_older(&self, node: &str, newest: SocketAddr) {
        self.open().retain(|at, link| link.node != node || *at == newest);
    }

    /// Marks a link as admitted: the engine has accepted its session.
    pub(super) fn admit(&self, link: SocketAddr) {
        if let Some(link) = self.open().get_mut(&link) {
            link.admitted = true;
        }
    }

    /// Closes every link of a node.
    pub(super) fn close(&self, node: &str) {
        self.open().retain(|_, link| link.node != node);
    }

    /// Closes every link.
    pub(super) fn close_all(&self) {
        self.open().clear();
    }

    /// Adds a link of a node. Returns `None` if the node has as many as allowed.
    pub(super) fn add(
        &self,
        at: SocketAddr,
        node: String,
        peer: SocketAddr,
    ) -> Option<oneshot::Receiver<()>> {
        let mut open = self.open();
        if open.values().filter(|link| link.node == node).count() >= self.per_node {
            return None;
        }
        let (close, closed) = oneshot::channel();
        open.insert(at, Link { node, peer, admitted: false, _close: close });
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

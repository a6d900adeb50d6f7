//! Path to each peer: the endpoint to try next, and when to leave WireGuard alone because the peer roamed to an endpoint
//! that works.

use super::Now;
use gatewrt_protocol::{Endpoint, Path, WgPublicKey};
use litemap::LiteMap;
use std::{net::SocketAddr, time::Duration};

/// Age from which a handshake is no sign of life: WireGuard makes a new one every two minutes while packets flow, and
/// gives up on a peer after three (`REJECT_AFTER_TIME`).
pub const FRESH: Duration = Duration::from_secs(180);
/// Time for which one endpoint is tried before the next. WireGuard repeats a handshake after 5 s.
const ATTEMPT: Duration = Duration::from_secs(11);
/// Time in which a handshake succeeds if no packet is lost.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// Observation of a WireGuard peer's endpoint and last handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Endpoint that packets go to now.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last handshake.
    pub handshake_age: Option<Duration>,
}

/// Path to one peer of a network, with the endpoint to try next.
#[derive(Debug, Clone, Default)]
struct PeerPath {
    /// Endpoints in its record, best first.
    known: Vec<SocketAddr>,
    /// Endpoint that WireGuard is to use until a handshake succeeds, and since when.
    desired: Option<(SocketAddr, Now)>,
    /// `None` until WireGuard knows the peer.
    seen: Option<Seen>,
    reset: Reset,
    /// True if this side acts; the peer's side does not, so that not both do.
    leads: bool,
}

/// Reset of a WireGuard peer without a handshake: it is removed and added again, so that WireGuard forgets its state
/// and sends at once. It heals two cases. Two nodes that learn of each other at the same moment both send the first
/// packet of a handshake, each accepts the other's and gives up its own, and neither sends again for five seconds. And
/// a peer whose clock fell back is ignored, since WireGuard remembers its last timestamp (TAI64N).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reset {
    #[default]
    Unneeded,
    Due,
    /// The reset was done once, which is enough until there is a handshake.
    Done,
}

/// Paths to the peers of one network.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    peers: LiteMap<WgPublicKey, PeerPath>,
}

impl Paths {
    /// Replaces the peers of the network and their endpoints, best first; `own` is this node's key.
    pub fn handle_members<'a>(
        &mut self,
        own: WgPublicKey,
        members: impl Iterator<Item = (WgPublicKey, &'a [Endpoint])>,
        now: Now,
    ) {
        let mut peers = LiteMap::new();
        for (key, endpoints) in members {
            let mut peer = self.peers.get_mut(&key).map(std::mem::take).unwrap_or_default();
            peer.leads = own < key;
            peer.handle_known(endpoints.iter().map(|endpoint| endpoint.addr).collect(), now);
            peers.insert(key, peer);
        }
        self.peers = peers;
    }

    /// Takes in an observation of the network's peers in WireGuard. A peer that is missing in it is unknown to the
    /// kernel.
    pub fn handle_device(&mut self, seen: &LiteMap<WgPublicKey, Seen>, now: Now) {
        for (key, peer) in &mut self.peers {
            match seen.get(key) {
                Some(seen) => peer.handle_seen(*seen, now),
                None => peer.handle_unseen(now),
            }
        }
    }

    /// Endpoint of a peer to set in WireGuard; `None` leaves it as it is.
    pub fn desired(&self, key: &WgPublicKey) -> Option<SocketAddr> {
        self.peers.get(key)?.desired.map(|(addr, _)| addr)
    }

    /// True if a peer is to be removed from WireGuard, which resets it. It is added again once it is gone.
    pub fn is_to_forget(&self, key: &WgPublicKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.reset == Reset::Due)
    }

    /// Last endpoint of a peer, or else the best one in its record.
    pub fn last(&self, key: &WgPublicKey) -> Option<SocketAddr> {
        let peer = self.peers.get(key)?;
        peer.seen.and_then(|seen| seen.endpoint).or(peer.known.first().copied())
    }

    /// Path by which a peer of the network is reached.
    pub fn path(&self, key: &WgPublicKey) -> Path {
        let fresh = self.peers.get(key).is_some_and(|peer| peer.is_fresh());
        if fresh { Path::Direct } else { Path::Down }
    }
}

impl PeerPath {
    fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age < FRESH)
    }

    fn age(&self) -> Option<Duration> {
        self.seen?.handshake_age
    }

    fn handle_known(&mut self, known: Vec<SocketAddr>, now: Now) {
        if known == self.known {
            return;
        }
        let current = self.seen.and_then(|seen| seen.endpoint);
        let named_before = current.is_none_or(|addr| self.known.contains(&addr));
        let named_now = current.is_some_and(|addr| known.contains(&addr));
        self.known = known;
        // A peer that roamed to an endpoint outside its record is followed as long as that works.
        let leave = named_now || (!named_before && self.is_fresh());
        self.desired = self.known.first().filter(|_| !leave).map(|addr| (*addr, now));
    }

    fn handle_seen(&mut self, seen: Seen, now: Now) {
        let before = self.seen.replace(seen);
        match self.desired {
            // A working endpoint at the start is kept as it is: the peer may have roamed.
            Some(_) if before.is_none() && self.is_fresh() => self.desired = None,
            Some((_, since)) if self.has_settled(since, now) => self.desired = None,
            Some((addr, since)) if now >= since + ATTEMPT && !self.is_fresh() => {
                self.desired = self.after(addr, now)
            }
            None if !self.is_fresh() && seen.endpoint.is_none_or(|addr| !self.known.contains(&addr)) => {
                self.desired = self.known.first().map(|addr| (*addr, now));
            }
            None if !self.is_fresh() && self.known.len() > 1 => {
                self.desired = seen.endpoint.and_then(|addr| self.after(addr, now));
            }
            _ => {}
        }
        if self.is_fresh() {
            self.reset = Reset::Unneeded;
        } else if self.reset == Reset::Unneeded && self.is_stuck(now) {
            self.reset = Reset::Due;
        }
    }

    /// True if a peer without a fresh handshake could have been reached by now, or was reached before.
    fn is_stuck(&self, now: Now) -> bool {
        let tried = self.desired.is_some_and(|(_, since)| now >= since + HANDSHAKE);
        self.age().is_some() || (self.leads && tried)
    }

    /// Gives a peer that was removed from WireGuard an endpoint to come back with: the one that worked last.
    fn handle_unseen(&mut self, now: Now) {
        if let Some(last) = self.seen.take() {
            let fresh = last.handshake_age.is_some_and(|age| age < FRESH);
            let worked = last.endpoint.filter(|_| fresh);
            let tried = self.desired.map(|(addr, _)| addr);
            let known = tried.or(self.known.first().copied()).or(last.endpoint);
            self.desired = worked.or(known).map(|addr| (addr, now));
        }
        if self.reset == Reset::Due {
            self.reset = Reset::Done;
        }
    }

    /// True if a handshake with the peer succeeded since its endpoint was set.
    fn has_settled(&self, since: Now, now: Now) -> bool {
        self.age().is_some_and(|age| now.saturating_sub(age) > since)
    }

    fn after(&self, addr: SocketAddr, now: Now) -> Option<(SocketAddr, Now)> {
        let at = self.known.iter().position(|known| *known == addr).map_or(0, |at| at + 1);
        self.known.get(at % self.known.len().max(1)).map(|addr| (*addr, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewrt_protocol::EndpointKind;

    const S: Duration = Duration::from_secs(1);
    const OWN: WgPublicKey = WgPublicKey([2; 32]);
    const KEY: WgPublicKey = WgPublicKey([3; 32]);

    fn addr(last: u8) -> SocketAddr {
        ([198, 51, 100, last], 51820).into()
    }

    fn told(paths: &mut Paths, known: &[u8], now: Now) {
        told_to(OWN, paths, known, now);
    }

    fn told_to(own: WgPublicKey, paths: &mut Paths, known: &[u8], now: Now) {
        let endpoints: Vec<_> =
            known.iter().map(|last| Endpoint { addr: addr(*last), kind: EndpointKind::Wan }).collect();
        paths.handle_members(own, [(KEY, endpoints.as_slice())].into_iter(), now);
    }

    fn seen(paths: &mut Paths, at: u8, age: Option<u64>, now: Now) {
        let seen = Seen { endpoint: Some(addr(at)), handshake_age: age.map(Duration::from_secs) };
        paths.handle_device(&LiteMap::from_iter([(KEY, seen)]), now);
    }

    #[test]
    fn first_endpoint_is_desired_until_a_handshake() {
        let mut paths = Paths::default();
        told(&mut paths, &[1, 2], 10 * S);
        assert_eq!(paths.desired(&KEY), Some(addr(1)));
        seen(&mut paths, 1, None, 11 * S);
        assert_eq!(paths.desired(&KEY), Some(addr(1)));
        seen(&mut paths, 1, Some(1), 13 * S);
        assert_eq!((paths.desired(&KEY), paths.path(&KEY)), (None, Path::Direct));
    }

    #[test]
    fn last_endpoint_is_the_observed_one_or_the_record_s() {
        let mut paths = Paths::default();
        assert_eq!(paths.last(&KEY), None);
        told(&mut paths, &[1, 2], 10 * S);
        assert_eq!(paths.last(&KEY), Some(addr(1)));
        seen(&mut paths, 3, Some(1), 13 * S);
        assert_eq!((paths.last(&KEY), paths.desired(&KEY)), (Some(addr(3)), None));
    }

    #[test]
    fn next_endpoint_is_tried_when_one_is_dead() {
        let mut paths = Paths::default();
        told(&mut paths, &[1, 2], Duration::ZERO);
        seen(&mut paths, 1, None, ATTEMPT);
        assert_eq!(paths.desired(&KEY), Some(addr(2)));
        seen(&mut paths, 2, None, ATTEMPT * 2);
        assert_eq!(paths.desired(&KEY), Some(addr(1)));
    }

    #[test]
    fn roamed_peer_is_followed_while_it_works() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 9, Some(1), 10 * S);
        assert_eq!(paths.desired(&KEY), None);
        told(&mut paths, &[2], 20 * S);
        assert_eq!(paths.desired(&KEY), None);
        seen(&mut paths, 9, Some(400), 500 * S);
        assert_eq!(paths.desired(&KEY), Some(addr(2)));
    }

    #[test]
    fn working_endpoint_at_the_start_is_kept() {
        let mut paths = Paths::default();
        told(&mut paths, &[1, 2], Duration::ZERO);
        seen(&mut paths, 9, Some(100), Duration::ZERO);
        assert_eq!(paths.desired(&KEY), None);
        told(&mut paths, &[1], S);
        assert_eq!(paths.desired(&KEY), None);
        seen(&mut paths, 9, Some(200), 100 * S);
        assert_eq!(paths.desired(&KEY), Some(addr(1)));
    }

    #[test]
    fn removed_peer_comes_back_with_its_last_working_endpoint() {
        for (at, age, wanted) in [(1, 1, 1), (9, 1, 9), (9, 400, 1)] {
            let mut paths = Paths::default();
            told(&mut paths, &[1, 2], 395 * S);
            seen(&mut paths, at, Some(age), 400 * S);
            paths.handle_device(&LiteMap::new(), 401 * S);
            assert_eq!((paths.desired(&KEY), paths.path(&KEY)), (Some(addr(wanted)), Path::Down));
            paths.handle_device(&LiteMap::new(), 402 * S);
            assert_eq!(paths.desired(&KEY), Some(addr(wanted)));
            seen(&mut paths, wanted, None, 403 * S);
            seen(&mut paths, wanted, Some(0), 404 * S);
            assert_eq!(paths.desired(&KEY), None);
        }
    }

    #[test]
    fn dead_endpoint_at_the_start_is_replaced() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 9, Some(200), Duration::ZERO);
        assert_eq!(paths.desired(&KEY), Some(addr(1)));
    }

    #[test]
    fn changed_endpoint_replaces_the_one_in_use_at_once() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 1, Some(1), 10 * S);
        told(&mut paths, &[2], 20 * S);
        assert_eq!(paths.desired(&KEY), Some(addr(2)));
    }

    #[test]
    fn record_with_the_endpoint_in_use_changes_nothing() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 2, Some(1), 10 * S);
        told(&mut paths, &[2], 20 * S);
        assert_eq!(paths.desired(&KEY), None);
    }

    #[test]
    fn pair_without_handshake_is_reset_once_by_one_side() {
        for (own, forgets) in [(OWN, true), (WgPublicKey([4; 32]), false)] {
            let mut paths = Paths::default();
            told_to(own, &mut paths, &[1], Duration::ZERO);
            seen(&mut paths, 1, None, HANDSHAKE / 2);
            assert!(!paths.is_to_forget(&KEY));
            seen(&mut paths, 1, None, HANDSHAKE);
            assert_eq!(paths.is_to_forget(&KEY), forgets);
            paths.handle_device(&LiteMap::new(), 2 * S);
            assert_eq!((paths.is_to_forget(&KEY), paths.desired(&KEY)), (false, Some(addr(1))));
            seen(&mut paths, 1, None, 10 * S);
            assert!(!paths.is_to_forget(&KEY));
            seen(&mut paths, 1, Some(0), 11 * S);
            assert!(!paths.is_to_forget(&KEY));
        }
    }

    #[test]
    fn silent_peer_is_reset_with_a_known_endpoint() {
        for known in [[1].as_slice(), &[]] {
            let mut paths = Paths::default();
            told_to(WgPublicKey([4; 32]), &mut paths, known, Duration::ZERO);
            seen(&mut paths, 1, Some(179), 200 * S);
            assert!(!paths.is_to_forget(&KEY));
            seen(&mut paths, 1, Some(180), 201 * S);
            assert!(paths.is_to_forget(&KEY));
            paths.handle_device(&LiteMap::new(), 202 * S);
            assert_eq!((paths.is_to_forget(&KEY), paths.desired(&KEY)), (false, Some(addr(1))));
            seen(&mut paths, 1, None, 203 * S);
            assert!(!paths.is_to_forget(&KEY));
        }
    }
}

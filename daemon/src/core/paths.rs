//! How each peer is reached: which of its endpoints to try, and when to leave WireGuard alone because the
//! peer roamed to one that works.

use super::Now;
use crate::{gather::Gather, sorted::SortedMap};
use gatewrt_protocol::{Endpoint, Path, WgPublicKey};
use std::{net::SocketAddr, time::Duration};

/// A handshake older than this is no sign of life: WireGuard makes a new one every two minutes while packets
/// flow, and gives up on a peer after three (`REJECT_AFTER_TIME`).
pub const FRESH: Duration = Duration::from_secs(180);
/// How long one endpoint is tried before the next. WireGuard repeats a handshake after 5 s.
const TRY: Duration = Duration::from_secs(11);
/// Where nothing is lost, a handshake is made in less.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// What is seen of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where packets go now.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last handshake.
    pub handshake_age: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
struct Candidate {
    known: Vec<SocketAddr>,
    /// What is wanted of WireGuard until a handshake settles it.
    wanted: Option<(SocketAddr, Now)>,
    /// `None` until WireGuard knows the peer.
    seen: Option<Seen>,
    anew: Anew,
    /// Of the two sides the one that acts.
    leads: bool,
}

/// Whether a peer without a handshake is taken away and added again: WireGuard forgets all about it then, and sends at
/// once. It heals two things. Two that learn of each other at the same moment both send the first packet of a handshake,
/// each takes the other's and gives up its own, and neither sends again for five seconds. And a peer whose clock fell back
/// is not heard, as WireGuard remembers how late it was there (TAI64N).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Anew {
    #[default]
    Unneeded,
    Due,
    /// Once is enough until there is a handshake.
    Done,
}

/// The paths of one network's peers.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    peers: SortedMap<WgPublicKey, Candidate>,
}

impl Paths {
    /// These are the peers and their endpoints from now on, best first; `own` is this node's key.
    pub fn handle_members<'a>(
        &mut self,
        own: WgPublicKey,
        members: impl Iterator<Item = (WgPublicKey, &'a [Endpoint])>,
        now: Now,
    ) {
        let mut peers = Vec::new();
        for (key, endpoints) in members {
            let mut candidate = self.peers.get_mut(&key).map(std::mem::take).unwrap_or_default();
            candidate.leads = own < key;
            candidate.handle_known(endpoints.iter().map(|endpoint| endpoint.addr).gather(), now);
            peers.push((key, candidate));
        }
        self.peers = peers.into();
    }

    /// What the kernel shows of its peers; of one that is not among them it knows nothing.
    pub fn handle_device(&mut self, seen: &SortedMap<WgPublicKey, Seen>, now: Now) {
        for (key, candidate) in &mut self.peers {
            match seen.get(key) {
                Some(seen) => candidate.handle_seen(*seen, now),
                None => candidate.handle_unseen(now),
            }
        }
    }

    /// The endpoint to give to WireGuard; `None` leaves it as it is.
    pub fn wanted(&self, key: &WgPublicKey) -> Option<SocketAddr> {
        self.peers.get(key)?.wanted.map(|(addr, _)| addr)
    }

    /// Whether WireGuard is to forget the peer. It is added again when it is gone.
    pub fn is_to_forget(&self, key: &WgPublicKey) -> bool {
        self.peers.get(key).is_some_and(|candidate| candidate.anew == Anew::Due)
    }

    /// Where the peer was reached last, or may be.
    pub fn last(&self, key: &WgPublicKey) -> Option<SocketAddr> {
        let peer = self.peers.get(key)?;
        peer.seen.and_then(|seen| seen.endpoint).or(peer.known.first().copied())
    }

    /// How the peer is reached.
    pub fn path(&self, key: &WgPublicKey) -> Path {
        let fresh = self.peers.get(key).is_some_and(|candidate| candidate.is_fresh());
        if fresh { Path::Direct } else { Path::Down }
    }
}

impl Candidate {
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
        // A peer that roamed to an endpoint no record names is followed as long as that works.
        let leave = named_now || (!named_before && self.is_fresh());
        self.wanted = self.known.first().filter(|_| !leave).map(|addr| (*addr, now));
    }

    fn handle_seen(&mut self, seen: Seen, now: Now) {
        let before = self.seen.replace(seen);
        match self.wanted {
            // What runs when we start is taken over as it is: it may have roamed.
            Some(_) if before.is_none() && self.is_fresh() => self.wanted = None,
            Some((_, since)) if self.has_settled(since, now) => self.wanted = None,
            Some((addr, since)) if now >= since + TRY && !self.is_fresh() => {
                self.wanted = self.after(addr, now)
            }
            None if !self.is_fresh() && seen.endpoint.is_none_or(|addr| !self.known.contains(&addr)) => {
                self.wanted = self.known.first().map(|addr| (*addr, now));
            }
            None if !self.is_fresh() && self.known.len() > 1 => {
                self.wanted = seen.endpoint.and_then(|addr| self.after(addr, now));
            }
            _ => {}
        }
        if self.is_fresh() {
            self.anew = Anew::Unneeded;
        } else if self.anew == Anew::Unneeded && self.is_stuck(now) {
            self.anew = Anew::Due;
        }
    }

    /// It could have been reached by now, or was reached before.
    fn is_stuck(&self, now: Now) -> bool {
        let tried = self.wanted.is_some_and(|(_, since)| now >= since + HANDSHAKE);
        self.age().is_some() || (self.leads && tried)
    }

    /// A peer that someone removed is to come back with an endpoint: where it worked last.
    fn handle_unseen(&mut self, now: Now) {
        if let Some(last) = self.seen.take() {
            let fresh = last.handshake_age.is_some_and(|age| age < FRESH);
            let worked = last.endpoint.filter(|_| fresh);
            let tried = self.wanted.map(|(addr, _)| addr);
            let known = tried.or(self.known.first().copied()).or(last.endpoint);
            self.wanted = worked.or(known).map(|addr| (addr, now));
        }
        if self.anew == Anew::Due {
            self.anew = Anew::Done;
        }
    }

    /// A handshake was made since the endpoint was given, or packets go elsewhere and that is fresh.
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
        paths.handle_device(&SortedMap::from([(KEY, seen)]), now);
    }

    #[test]
    fn the_first_candidate_is_wanted_until_a_handshake() {
        let mut paths = Paths::default();
        told(&mut paths, &[1, 2], 10 * S);
        assert_eq!(paths.wanted(&KEY), Some(addr(1)));
        seen(&mut paths, 1, None, 11 * S);
        assert_eq!(paths.wanted(&KEY), Some(addr(1)));
        seen(&mut paths, 1, Some(1), 13 * S);
        assert_eq!((paths.wanted(&KEY), paths.path(&KEY)), (None, Path::Direct));
    }

    #[test]
    fn a_peer_is_last_where_it_was_seen_and_before_that_where_records_say() {
        let mut paths = Paths::default();
        assert_eq!(paths.last(&KEY), None);
        told(&mut paths, &[1, 2], 10 * S);
        assert_eq!(paths.last(&KEY), Some(addr(1)));
        seen(&mut paths, 3, Some(1), 13 * S);
        assert_eq!((paths.last(&KEY), paths.wanted(&KEY)), (Some(addr(3)), None));
    }

    #[test]
    fn the_next_candidate_is_tried_when_one_is_dead() {
        let mut paths = Paths::default();
        told(&mut paths, &[1, 2], Duration::ZERO);
        seen(&mut paths, 1, None, TRY);
        assert_eq!(paths.wanted(&KEY), Some(addr(2)));
        seen(&mut paths, 2, None, TRY * 2);
        assert_eq!(paths.wanted(&KEY), Some(addr(1)));
    }

    #[test]
    fn a_peer_that_roamed_is_followed_while_it_works() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 9, Some(1), 10 * S);
        assert_eq!(paths.wanted(&KEY), None);
        told(&mut paths, &[2], 20 * S);
        assert_eq!(paths.wanted(&KEY), None);
        seen(&mut paths, 9, Some(400), 500 * S);
        assert_eq!(paths.wanted(&KEY), Some(addr(2)));
    }

    #[test]
    fn a_tunnel_that_runs_at_the_start_stays_where_it_is() {
        let mut paths = Paths::default();
        told(&mut paths, &[1, 2], Duration::ZERO);
        seen(&mut paths, 9, Some(100), Duration::ZERO);
        assert_eq!(paths.wanted(&KEY), None);
        told(&mut paths, &[1], S);
        assert_eq!(paths.wanted(&KEY), None);
        seen(&mut paths, 9, Some(200), 100 * S);
        assert_eq!(paths.wanted(&KEY), Some(addr(1)));
    }

    #[test]
    fn a_peer_that_was_removed_is_wanted_where_it_worked_last() {
        for (at, age, wanted) in [(1, 1, 1), (9, 1, 9), (9, 400, 1)] {
            let mut paths = Paths::default();
            told(&mut paths, &[1, 2], 395 * S);
            seen(&mut paths, at, Some(age), 400 * S);
            paths.handle_device(&SortedMap::new(), 401 * S);
            assert_eq!((paths.wanted(&KEY), paths.path(&KEY)), (Some(addr(wanted)), Path::Down));
            paths.handle_device(&SortedMap::new(), 402 * S);
            assert_eq!(paths.wanted(&KEY), Some(addr(wanted)));
            seen(&mut paths, wanted, None, 403 * S);
            seen(&mut paths, wanted, Some(0), 404 * S);
            assert_eq!(paths.wanted(&KEY), None);
        }
    }

    #[test]
    fn a_tunnel_that_was_dead_at_the_start_is_tried_anew() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 9, Some(200), Duration::ZERO);
        assert_eq!(paths.wanted(&KEY), Some(addr(1)));
    }

    #[test]
    fn a_changed_endpoint_is_taken_at_once_where_the_old_one_was_in_use() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 1, Some(1), 10 * S);
        told(&mut paths, &[2], 20 * S);
        assert_eq!(paths.wanted(&KEY), Some(addr(2)));
    }

    #[test]
    fn a_record_that_names_the_endpoint_in_use_changes_nothing() {
        let mut paths = Paths::default();
        told(&mut paths, &[1], Duration::ZERO);
        seen(&mut paths, 2, Some(1), 10 * S);
        told(&mut paths, &[2], 20 * S);
        assert_eq!(paths.wanted(&KEY), None);
    }

    #[test]
    fn of_two_without_a_handshake_one_forgets_the_other_once() {
        for (own, forgets) in [(OWN, true), (WgPublicKey([4; 32]), false)] {
            let mut paths = Paths::default();
            told_to(own, &mut paths, &[1], Duration::ZERO);
            seen(&mut paths, 1, None, HANDSHAKE / 2);
            assert!(!paths.is_to_forget(&KEY));
            seen(&mut paths, 1, None, HANDSHAKE);
            assert_eq!(paths.is_to_forget(&KEY), forgets);
            paths.handle_device(&SortedMap::new(), 2 * S);
            assert_eq!((paths.is_to_forget(&KEY), paths.wanted(&KEY)), (false, Some(addr(1))));
            seen(&mut paths, 1, None, 10 * S);
            assert!(!paths.is_to_forget(&KEY));
            seen(&mut paths, 1, Some(0), 11 * S);
            assert!(!paths.is_to_forget(&KEY));
        }
    }

    #[test]
    fn a_peer_that_is_silent_for_long_is_forgotten_and_added_where_it_is_known_or_was_seen() {
        for known in [[1].as_slice(), &[]] {
            let mut paths = Paths::default();
            told_to(WgPublicKey([4; 32]), &mut paths, known, Duration::ZERO);
            seen(&mut paths, 1, Some(179), 200 * S);
            assert!(!paths.is_to_forget(&KEY));
            seen(&mut paths, 1, Some(180), 201 * S);
            assert!(paths.is_to_forget(&KEY));
            paths.handle_device(&SortedMap::new(), 202 * S);
            assert_eq!((paths.is_to_forget(&KEY), paths.wanted(&KEY)), (false, Some(addr(1))));
            seen(&mut paths, 1, None, 203 * S);
            assert!(!paths.is_to_forget(&KEY));
        }
    }
}

//! Admission of connections: others find room while one host takes all that it can get.
//!
//! A connection rises from [`Stage`] to [`Stage`] as its peer proves more, and each stage has a room of its own.
//! So who only opens connections is not in the way of handshakes for long, and who only finishes handshakes is
//! not in the way of who has a token or a certificate. A room has a share for each source. A full share or room
//! never makes anybody wait: the oldest connection of the source that takes most is closed for the newest.
//! Sound callers without a token or certificate need a connection for moments, floods for as long as they may.
//!
//! Several hosts may be behind one address, so a share holds hundreds, and whoever is authenticated does not
//! count any more. A reverse proxy on this machine speaks for everybody: its address may fill a whole room.

mod table;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};
use table::Table;
use tokio_util::sync::CancellationToken;

/// Number of connections that are to be closed and have not ended yet, above which no more are accepted. Less would let the
/// kernel's backlog overflow while handshakes keep the processor busy; each takes about 16 KiB.
const BEHIND: usize = 512;

/// Source of connections: an IPv4 address, the /64 of an IPv6 address (the prefix of one host), or a user of this
/// machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// IPv4 address, or the first of a /64.
    Address(IpAddr),
    /// User id of a local process.
    User(u32),
}

impl Source {
    /// Source of a connection from this address. An IPv4-mapped address is an IPv4 address.
    pub fn of(addr: IpAddr) -> Self {
        Self::Address(match addr.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            other => other,
        })
    }

    /// True for the addresses of a reverse proxy on this machine.
    fn is_this_machine(self) -> bool {
        self == Self::Address(Ipv4Addr::LOCALHOST.into()) || self == Self::Address(Ipv6Addr::LOCALHOST.into())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(v6)) if !v6.is_loopback() => write!(f, "{v6}/64"),
            Self::Address(addr) => write!(f, "{addr}"),
            Self::User(uid) => write!(f, "user {uid}"),
        }
    }
}

/// Stage of a connection: the proof that its peer has given so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// None yet: the TLS handshake is not finished.
    Handshake,
    /// The peer speaks TLS, without a token or certificate.
    Anonymous,
    /// The peer has shown a valid token or certificate.
    Authenticated,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "unfinished handshake",
            Self::Anonymous => "connection without a token",
            Self::Authenticated => "authenticated connection",
        })
    }
}

/// Room for the connections of one stage.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Largest number of connections.
    pub total: usize,
    /// Largest number of connections from one source.
    pub per_source: usize,
    /// Action when the room is full.
    pub when_full: WhenFull,
}

/// Action when a room is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest connection of the source that has most is closed; of the newcomer's own, if that has as many.
    CloseOldest,
    /// The newcomer is refused: a session that was made stays.
    Refuse,
}

/// Rooms of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Rooms {
    /// Room for unfinished handshakes.
    pub handshake: Room,
    /// Room for connections without a token or certificate.
    pub anonymous: Room,
    /// Room for authenticated connections.
    pub authenticated: Room,
}

impl Rooms {
    fn of(&self, stage: Stage) -> Room {
        match stage {
            Stage::Handshake => self.handshake,
            Stage::Anonymous => self.anonymous,
            Stage::Authenticated => self.authenticated,
        }
    }
}

/// Error of a connection for which there is no room, although no source has more than its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for another {0}")]
pub struct NoRoom(Stage);

/// Admission of the connections of one listener. See the module.
pub struct Admission {
    service: &'static str,
    rooms: Rooms,
    table: Mutex<Table>,
}

impl Admission {
    /// Admission to a service (its name is for the log) with these rooms.
    pub fn new(service: &'static str, rooms: Rooms) -> Arc<Self> {
        Arc::new(Self { service, rooms, table: Mutex::default() })
    }

    /// Admits a new connection to a stage, at the expense of an older one if need be.
    pub fn admit(self: &Arc<Self>, source: Source, stage: Stage) -> Result<Permit, NoRoom> {
        let closing = CancellationToken::new();
        let mut table = self.table();
        let id = table.next_id();
        let closed = table.enter(id, source, stage, self.rooms.of(stage), closing.clone())?;
        drop(table);
        self.log_closed(closed, stage);
        Ok(Permit { admission: self.clone(), id, closing })
    }

    /// True if many connections are to be closed and have not ended yet: their tasks wait for the processor. Accepting more
    /// would only make more of them.
    pub fn is_behind(&self) -> bool {
        self.table().closing > BEHIND
    }

    /// Closes one connection to get a file descriptor back: the oldest of the source that has most, of those that have
    /// proved least. Returns false if there is none.
    pub fn close_one(&self) -> bool {
        let mut table = self.table();
        let stages = [Stage::Handshake, Stage::Anonymous];
        stages.iter().any(|stage| match table.heaviest(*stage) {
            Some((source, _)) => table.close_oldest(*stage, source).is_some(),
            None => false,
        })
    }

    fn log_closed(&self, closed: Option<Source>, stage: Stage) {
        if let Some(from) = closed {
            tracing::warn!(service = self.service, %from, "too many at once: closed the oldest {stage}");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }
}

/// Permit of an admitted connection. Dropping it gives its room to another.
pub struct Permit {
    admission: Arc<Admission>,
    id: u64,
    closing: CancellationToken,
}

impl Permit {
    /// Moves the connection up to a stage, and frees its room of the stage before. One that is there already, or that
    /// is to be closed, stays what it is.
    pub fn rise_to(&self, stage: Stage) -> Result<(), NoRoom> {
        let room = self.admission.rooms.of(stage);
        let closed = self.admission.table().rise(self.id, stage, room)?;
        self.admission.log_closed(closed, stage);
        Ok(())
    }

    /// Waits until the connection is to be closed to make room for others.
    pub async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// True if the connection is to be closed to make room for others.
    pub fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.admission.table();
        match self.is_closed() {
            true => table.closing -= 1,
            false => table.leave(self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { total: 6, per_source: 3, when_full: WhenFull::CloseOldest };
    const ROOMS: Rooms = Rooms {
        handshake: ROOM,
        anonymous: ROOM,
        authenticated: Room { total: 2, per_source: 2, when_full: WhenFull::Refuse },
    };

    fn source(addr: &str) -> Source {
        Source::of(addr.parse().unwrap())
    }

    fn admit(admission: &Arc<Admission>, from: &str) -> Permit {
        admission.admit(source(from), Stage::Handshake).unwrap()
    }

    fn closed(permits: &[Permit]) -> Vec<usize> {
        permits.iter().enumerate().filter(|(_, permit)| permit.is_closed()).map(|(at, _)| at).collect()
    }

    #[test]
    fn source_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:1"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8::1"));
        let shown = ["192.0.2.1", "2001:db8::1", "::1"].map(|addr| source(addr).to_string());
        assert_eq!(shown, ["192.0.2.1", "2001:db8::/64", "::1"]);
    }

    #[test]
    fn source_over_its_share_loses_its_oldest_connection() {
        let admission = Admission::new("test", ROOMS);
        let other = admit(&admission, "192.0.2.9");
        let flood: Vec<_> = (0..5).map(|_| admit(&admission, "192.0.2.1")).collect();
        assert_eq!(closed(&flood), [0, 1]);
        assert!(!other.is_closed());
    }

    #[test]
    fn newcomer_to_a_full_room_takes_from_the_source_with_most() {
        let admission = Admission::new("test", ROOMS);
        let flood: Vec<_> = (0..6).map(|at| admit(&admission, ["192.0.2.1", "192.0.2.2"][at % 2])).collect();
        let newcomers: Vec<_> = ["192.0.2.3", "192.0.2.4"].map(|from| admit(&admission, from)).into();
        assert_eq!(closed(&flood).len(), 2);
        assert!(closed(&newcomers).is_empty());
    }

    #[test]
    fn full_room_of_many_sources_refuses_a_newcomer() {
        let admission = Admission::new("test", ROOMS);
        let all: Vec<_> = (0..6).map(|at| admit(&admission, &format!("192.0.2.{at}"))).collect();
        assert!(admission.admit(source("192.0.2.7"), Stage::Handshake).is_err());
        assert!(closed(&all).is_empty(), "what was begun is finished");
        drop(all);
        admit(&admission, "192.0.2.7");
    }

    #[test]
    fn risen_connection_does_not_count_where_it_came_from() {
        let admission = Admission::new("test", ROOMS);
        let risen = admit(&admission, "192.0.2.1");
        risen.rise_to(Stage::Anonymous).unwrap();
        let flood: Vec<_> = (0..9).map(|_| admit(&admission, "192.0.2.1")).collect();
        assert!(!risen.is_closed());
        assert_eq!(closed(&flood).len(), 6);
        risen.rise_to(Stage::Handshake).unwrap();
        drop(flood);
        assert_eq!(admission.table().count(Stage::Handshake), 0, "nobody sinks");
        assert_eq!(admission.table().count(Stage::Anonymous), 1);
    }

    #[test]
    fn authenticated_connection_is_not_closed_for_another() {
        let admission = Admission::new("test", ROOMS);
        let all: Vec<_> = (0..3).map(|at| admit(&admission, &format!("192.0.2.{at}"))).collect();
        let risen: Vec<_> = all.iter().map(|permit| permit.rise_to(Stage::Authenticated).is_ok()).collect();
        assert_eq!(risen, [true, true, false]);
        assert!(closed(&all).is_empty());
    }

    #[test]
    fn proxy_on_this_machine_has_the_whole_room_as_its_share() {
        for addr in ["127.0.0.1", "::1"] {
            let admission = Admission::new("test", ROOMS);
            let all: Vec<_> = (0..7).map(|_| admit(&admission, addr)).collect();
            assert_eq!(closed(&all), [0], "{addr}");
            let other = admit(&admission, "192.0.2.1");
            assert_eq!((closed(&all), other.is_closed()), (vec![0, 1], false), "{addr}");
        }
    }

    #[test]
    fn newcomer_of_one_of_the_heaviest_sources_takes_from_its_own() {
        for other in ["127.0.0.2", "127.0.0.0"] {
            let admission = Admission::new("test", ROOMS);
            let mixed: Vec<_> = (0..6).map(|at| admit(&admission, ["127.0.0.1", other][at % 2])).collect();
            let newest = admit(&admission, "127.0.0.1");
            assert_eq!((closed(&mixed), newest.is_closed()), (vec![0], false), "{other}");
        }
    }

    #[test]
    fn want_of_descriptors_closes_who_has_proved_least() {
        let admission = Admission::new("test", ROOMS);
        let [risen, idle] = [admit(&admission, "192.0.2.1"), admit(&admission, "192.0.2.2")];
        risen.rise_to(Stage::Anonymous).unwrap();
        assert!(admission.close_one());
        assert_eq!((risen.is_closed(), idle.is_closed()), (false, true));
        assert!(admission.close_one());
        assert!(!admission.close_one());
    }

    #[test]
    fn closed_connection_leaves_nothing_behind() {
        let admission = Admission::new("test", ROOMS);
        for _ in 0..100 {
            let permit = admit(&admission, "192.0.2.1");
            permit.rise_to(Stage::Anonymous).unwrap();
        }
        let held: Vec<_> = (0..=BEHIND + 3).map(|_| admit(&admission, "192.0.2.1")).collect();
        assert!(admission.is_behind());
        drop(held);
        assert!(!admission.is_behind());
        let table = admission.table();
        assert!(
            table.closing == 0
                && table.open.is_empty()
                && table.held.values().all(std::collections::BTreeMap::is_empty)
        );
    }
}

//! Session with the coordinator's broker: when to connect, to which broker, and when a connection that looks open is
//! dead. Only deliveries show that it is alive: an acknowledgement or a message, not an open socket.
//!
//! ```text
//!                    poll(): the wait is over
//!   ┌─────────┐ ──────────────────────────────▶ ┌────────────┐
//!   │ Waiting │                                 │ Connecting │
//!   └─────────┘ ◀────────────────────────────── └────────────┘
//!     ▲     ▲      handle_lost(), or ATTEMPT          │
//!     │     │      is over                            │ handle_connected()
//!     │     │                                         ▼
//!     │     │   handle_lost(), or no delivery   ┌───────────┐
//!     │     └────────────────────────────────── │ Connected │
//!     │         for SILENCE after a message     └───────────┘
//!     └── any state: reconnect()
//! ```

use super::Now;
use std::time::Duration;

/// First wait after a failure, in milliseconds; it doubles up to [`LONGEST_WAIT`] each time that all brokers were tried.
const FIRST_WAIT: u32 = 500;
/// Longest wait between two attempts, in milliseconds.
const LONGEST_WAIT: u32 = 60_000;
/// Wait before a requested reconnect.
const RECONNECT_WAIT: Duration = Duration::from_millis(125);
/// Time without a delivery after a sent message, after which the connection is dead.
const SILENCE: Duration = Duration::from_secs(20);
/// Time for which a connection must last, or it counts as a failed attempt: a broker that accepts and drops everyone is
/// not to be hammered.
const STEADY: Duration = Duration::from_secs(3);
/// Longest duration of an attempt.
const ATTEMPT: Duration = Duration::from_secs(25);

/// Time without a connection after which the coordinator may have moved.
const ASTRAY: Duration = Duration::from_secs(30);

/// State of the session with a broker. `expecting` is the time of the first sent message since the last delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Now },
    Connecting { since: Now },
    Connected { since: Now, expecting: Option<Now> },
}

/// Request of a session to the driver of the control link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to the broker of this index.
    Connect(usize),
    /// Drop the connection.
    Drop,
}

/// Session of one network with its coordinator's broker.
#[derive(Debug, Clone)]
pub struct Session {
    state: State,
    brokers: usize,
    broker: usize,
    failures: u32,
    /// Last time that the session was connected to a broker; its start at first.
    reached: Now,
    jitter: u32,
    last_error: Option<String>,
    /// Connections so far in this run of the daemon.
    sessions: u64,
    /// Messages handed over so far in this run of the daemon.
    sent: u64,
    /// Number of them that were acknowledged, or lost with their connection.
    acked: u64,
}

impl Session {
    /// Session that connects at once to the first of `brokers` brokers. `seed` spreads the waits of many routers.
    pub fn new(brokers: usize, seed: u32, now: Now) -> Self {
        Self {
            state: State::Waiting { until: now },
            brokers: brokers.max(1),
            broker: 0,
            failures: 0,
            reached: now,
            jitter: seed | 1,
            last_error: None,
            sessions: 0,
            sent: 0,
            acked: 0,
        }
    }

    /// Sets the number of brokers to try in turn: the coordinator may name others.
    pub fn set_brokers(&mut self, brokers: usize) {
        self.brokers = brokers.max(1);
        self.broker %= self.brokers;
    }

    /// True if the session is connected to a broker.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// True if the session has a connection or an attempt at one.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Waiting { .. })
    }

    /// Time since which the session is connected to a broker; `None` while it is not.
    pub fn connected_since(&self) -> Option<Now> {
        match self.state {
            State::Connected { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Reason why the last attempt to connect failed or the connection was lost.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Number of the session's connection in this run of the daemon, counting from 1.
    pub fn number(&self) -> u64 {
        self.sessions
    }

    /// Number of messages sent to the broker in this run of the daemon.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Number of sent messages that the broker has acknowledged, which it does in their order, or that were lost.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Notes that the connection to the broker is up.
    pub fn handle_connected(&mut self, now: Now) {
        self.acked = self.sent;
        self.state = State::Connected { since: now, expecting: None };
        self.last_error = None;
    }

    /// Notes that a message or an acknowledgement came from the broker.
    pub fn handle_delivery(&mut self) {
        if let State::Connected { expecting, .. } = &mut self.state {
            *expecting = None;
        }
    }

    /// Notes that the broker acknowledged the next message.
    pub fn handle_acked(&mut self) {
        self.handle_delivery();
        self.acked = self.sent.min(self.acked + 1);
    }

    /// Notes that the last message to the broker was not sent after all.
    pub fn handle_unsent(&mut self) {
        self.sent = self.acked.max(self.sent.saturating_sub(1));
    }

    /// Notes that a message was sent that the broker will acknowledge.
    pub fn handle_sent(&mut self, now: Now) {
        self.sent += 1;
        if let State::Connected { expecting, .. } = &mut self.state {
            expecting.get_or_insert(now);
        }
    }

    /// Notes that the connection is lost, or the attempt at one failed, and waits for the next attempt.
    pub fn handle_lost(&mut self, why: String, now: Now) {
        self.last_error = Some(why);
        self.note_reached(now);
        if self.connected_since().is_some_and(|since| since + STEADY <= now) {
            self.failures = 0;
        }
        self.wait(now);
    }

    /// Connects soon to the first of as many other brokers, whatever was tried before.
    pub fn start_over(&mut self, brokers: usize, now: Now) {
        self.set_brokers(brokers);
        self.broker = 0;
        self.reconnect(now);
    }

    /// True if no broker was reached for so long that the coordinator may have moved.
    pub fn is_astray(&self, now: Now) -> bool {
        !self.is_connected() && self.reached + ASTRAY <= now
    }

    /// Connects to the broker anew soon, since the connection leads nowhere or is to be refreshed; returns what to do
    /// with the old one.
    pub fn reconnect(&mut self, now: Now) -> Option<Action> {
        let open = self.is_open();
        self.note_reached(now);
        self.failures = 0;
        self.state = State::Waiting { until: now + RECONNECT_WAIT };
        open.then_some(Action::Drop)
    }

    /// Time at which the session has to act by [`Self::poll`], and the reason in words.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        match self.state {
            State::Waiting { until } => Some((until, "connect to the broker")),
            State::Connecting { since } => Some((since + ATTEMPT, "give up connecting")),
            State::Connected { expecting, .. } => {
                expecting.map(|at| (at + SILENCE, "control link is silent"))
            }
        }
    }

    /// Action of the session that is due now.
    pub fn poll(&mut self, now: Now) -> Option<Action> {
        match self.state {
            State::Waiting { until } if until <= now => {
                self.state = State::Connecting { since: now };
                self.sessions += 1;
                Some(Action::Connect(self.broker))
            }
            State::Connecting { since } if since + ATTEMPT <= now => {
                self.handle_lost("no answer from the broker".to_owned(), now);
                Some(Action::Drop)
            }
            State::Connected { expecting: Some(at), .. } if at + SILENCE <= now => {
                let why = format!("nothing was delivered for {} s", SILENCE.as_secs());
                self.handle_lost(why, now);
                Some(Action::Drop)
            }
            _ => None,
        }
    }

    fn note_reached(&mut self, now: Now) {
        if self.is_connected() {
            self.reached = now;
        }
    }

    fn wait(&mut self, now: Now) {
        let rounds = self.failures / self.brokers as u32;
        let wait = (FIRST_WAIT << rounds.min(10)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.broker = (self.broker + 1) % self.brokers;
        self.state = State::Waiting { until: now + self.spread(wait) };
    }

    /// Random wait between half and all of `wait` milliseconds (xorshift32).
    fn spread(&mut self, wait: u32) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 17;
        self.jitter ^= self.jitter << 5;
        Duration::from_millis((wait / 2 + wait / 2 * (self.jitter % 1000) / 1000).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);
    const FIRST_WAIT: Duration = Duration::from_millis(super::FIRST_WAIT as u64);
    const LONGEST_WAIT: Duration = Duration::from_millis(super::LONGEST_WAIT as u64);

    #[test]
    fn failed_attempts_back_off_over_all_brokers() {
        let mut session = Session::new(2, 7, Duration::ZERO);
        assert_eq!(session.poll(Duration::ZERO), Some(Action::Connect(0)));
        session.handle_lost("refused".into(), S);
        let (first, _) = session.poll_timeout().expect("waits");
        assert!(first > S && first <= S + FIRST_WAIT);
        assert_eq!(session.poll(first), Some(Action::Connect(1)));
        session.handle_lost("refused".into(), 10 * S);
        let (second, _) = session.poll_timeout().expect("waits");
        assert!(second > 10 * S && second <= 10 * S + FIRST_WAIT, "the other broker is tried as soon");
        assert_eq!(session.poll(second), Some(Action::Connect(0)));
        session.handle_lost("refused".into(), 20 * S);
        let (third, _) = session.poll_timeout().expect("waits");
        assert!(third >= 20 * S + FIRST_WAIT && third <= 20 * S + 2 * FIRST_WAIT);
        assert_eq!(session.last_error(), Some("refused"));
    }

    #[test]
    fn connected_session_without_deliveries_is_dropped() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        session.poll(Duration::ZERO);
        session.handle_connected(S);
        assert_eq!(session.poll(100 * S), None);
        session.handle_sent(100 * S);
        session.handle_delivery();
        assert_eq!(session.poll(200 * S), None);
        session.handle_sent(200 * S);
        session.handle_sent(210 * S);
        assert_eq!(session.poll(200 * S + SILENCE), Some(Action::Drop));
        assert!(!session.is_connected());
    }

    #[test]
    fn connection_that_never_lasts_backs_off() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        let mut now = Duration::ZERO;
        for failed in 0..5 {
            assert_eq!(session.poll(now), Some(Action::Connect(0)));
            session.handle_connected(now);
            session.handle_lost("closed".into(), now + S);
            let (next, _) = session.poll_timeout().expect("waits");
            assert!(next >= now + S + FIRST_WAIT * (1 << failed) / 2, "{failed}");
            now = next;
        }
        session.poll(now);
        session.handle_connected(now);
        session.handle_lost("closed".into(), now + STEADY);
        let (next, _) = session.poll_timeout().expect("waits");
        assert!(next <= now + STEADY + FIRST_WAIT);
    }

    #[test]
    fn connected_session_reconnects_soon_on_request() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        session.poll(Duration::ZERO);
        session.handle_connected(S);
        assert_eq!(session.reconnect(10 * S), Some(Action::Drop));
        let (at, _) = session.poll_timeout().expect("waits");
        assert!(at < 11 * S);
    }

    #[test]
    fn attempt_without_an_answer_is_dropped() {
        let mut session = Session::new(2, 7, Duration::ZERO);
        session.poll(Duration::ZERO);
        assert_eq!(session.poll_timeout().map(|(at, _)| at), Some(ATTEMPT));
        assert_eq!(session.poll(ATTEMPT - Duration::from_millis(1)), None);
        assert_eq!(session.poll(ATTEMPT), Some(Action::Drop));
        assert!(!session.is_open());
    }

    #[test]
    fn waiting_session_has_nothing_to_drop() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        assert_eq!(session.reconnect(S), None);
        assert_eq!(session.poll(S + RECONNECT_WAIT), Some(Action::Connect(0)));
        assert_eq!(session.reconnect(2 * S), Some(Action::Drop), "an attempt is dropped");
    }

    #[test]
    fn connected_session_forgets_the_last_error() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        session.poll(Duration::ZERO);
        session.handle_lost("refused".into(), S);
        assert_eq!(session.last_error(), Some("refused"));
        session.handle_connected(2 * S);
        assert_eq!((session.last_error(), session.connected_since()), (None, Some(2 * S)));
    }

    proptest! {
        #[test]
        fn lost_session_always_has_a_next_attempt(lost in 0u32..200, seed: u32) {
            let mut session = Session::new(3, seed, Duration::ZERO);
            let mut now = Duration::ZERO;
            for _ in 0..lost {
                prop_assert!(matches!(session.poll(now), Some(Action::Connect(0..3))));
                session.handle_lost("gone".into(), now);
                let (next, _) = session.poll_timeout().expect("waits");
                prop_assert!(next > now && next <= now + LONGEST_WAIT);
                now = next;
            }
        }
    }
}

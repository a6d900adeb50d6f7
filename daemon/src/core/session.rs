//! The control link to the coordinator: when to connect, to which broker, and when a link that looks alive
//! is dead. Alive is what delivers: an acknowledgement or a message, not an open socket.

use super::Now;
use std::time::Duration;

/// First wait after a lost link, in milliseconds; doubles up to [`LONGEST_WAIT`] each time that every broker was tried.
const FIRST_WAIT: u32 = 500;
/// The longest wait between two attempts, in milliseconds.
const LONGEST_WAIT: u32 = 60_000;
/// The wait when there is a new way to the broker.
const NEW_WAY: Duration = Duration::from_millis(125);
/// How long after a report nothing may be delivered before the link counts as dead.
const SILENCE: Duration = Duration::from_secs(20);
/// A link that held for less than this counts as a failed attempt: a broker that takes everyone in and drops
/// them again is no reason to hurry.
const STEADY: Duration = Duration::from_secs(3);
/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(25);

/// State of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Now },
    Connecting { since: Now },
    Connected { since: Now, expecting: Option<Now> },
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Open a link to the broker of this index.
    Connect(usize),
    /// Drop the link.
    Drop,
}

/// The control link of one network.
#[derive(Debug, Clone)]
pub struct Session {
    state: State,
    brokers: usize,
    broker: usize,
    failures: u32,
    jitter: u32,
    last_error: Option<String>,
    /// Connections so far in this run of the daemon.
    sessions: u64,
    /// Messages handed over so far in this run of the daemon.
    sent: u64,
    /// How many of them are acknowledged, or lost with their connection.
    acked: u64,
}

impl Session {
    /// A link that is to be opened at once, to one of `brokers` brokers. `seed` spreads the waits of many
    /// routers.
    pub fn new(brokers: usize, seed: u32, now: Now) -> Self {
        Self {
            state: State::Waiting { until: now },
            brokers: brokers.max(1),
            broker: 0,
            failures: 0,
            jitter: seed | 1,
            last_error: None,
            sessions: 0,
            sent: 0,
            acked: 0,
        }
    }

    /// Whether messages get through.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// Whether there is a link or an attempt at one.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Waiting { .. })
    }

    /// Since when it is connected.
    pub fn connected_since(&self) -> Option<Now> {
        match self.state {
            State::Connected { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Why the last attempt failed or the link was lost.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Number of the connection, counting from 1.
    pub fn number(&self) -> u64 {
        self.sessions
    }

    /// How many messages were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Up to which of them the broker has acknowledged: it does so in their order.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// The link is up.
    pub fn handle_connected(&mut self, now: Now) {
        self.acked = self.sent;
        self.state = State::Connected { since: now, expecting: None };
        self.last_error = None;
    }

    /// Something was delivered.
    pub fn handle_delivery(&mut self) {
        if let State::Connected { expecting, .. } = &mut self.state {
            *expecting = None;
        }
    }

    /// The first message that was not yet acknowledged is so now.
    pub fn handle_acked(&mut self) {
        self.handle_delivery();
        self.acked = self.sent.min(self.acked + 1);
    }

    /// What was to be sent last could not be.
    pub fn handle_unsent(&mut self) {
        self.sent = self.acked.max(self.sent.saturating_sub(1));
    }

    /// Something was sent that will be acknowledged.
    pub fn handle_sent(&mut self, now: Now) {
        self.sent += 1;
        if let State::Connected { expecting, .. } = &mut self.state {
            expecting.get_or_insert(now);
        }
    }

    /// The link is gone.
    pub fn handle_lost(&mut self, why: String, now: Now) {
        self.last_error = Some(why);
        if self.connected_since().is_some_and(|since| since + STEADY <= now) {
            self.failures = 0;
        }
        self.wait(now);
    }

    /// The way to the Internet changed: what is open goes nowhere, and waiting longer is of no use.
    /// Says whether there is a link to drop.
    pub fn handle_wan_changed(&mut self, now: Now) -> Option<Act> {
        let open = self.is_open();
        self.failures = 0;
        self.state = State::Waiting { until: now + NEW_WAY };
        open.then_some(Act::Drop)
    }

    /// When [`Self::poll`] has something to say next.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        match self.state {
            State::Waiting { until } => Some((until, "connect to the broker")),
            State::Connecting { since } => Some((since + ATTEMPT, "give up connecting")),
            State::Connected { expecting, .. } => {
                expecting.map(|at| (at + SILENCE, "control link is silent"))
            }
        }
    }

    /// What is due now.
    pub fn poll(&mut self, now: Now) -> Option<Act> {
        match self.state {
            State::Waiting { until } if until <= now => {
                self.state = State::Connecting { since: now };
                self.sessions += 1;
                Some(Act::Connect(self.broker))
            }
            State::Connecting { since } if since + ATTEMPT <= now => {
                self.handle_lost("no answer from the broker".to_owned(), now);
                Some(Act::Drop)
            }
            State::Connected { expecting: Some(at), .. } if at + SILENCE <= now => {
                let why = format!("nothing was delivered for {} s", SILENCE.as_secs());
                self.handle_lost(why, now);
                Some(Act::Drop)
            }
            _ => None,
        }
    }

    fn wait(&mut self, now: Now) {
        let rounds = self.failures / self.brokers as u32;
        let wait = (FIRST_WAIT << rounds.min(10)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.broker = (self.broker + 1) % self.brokers;
        self.state = State::Waiting { until: now + self.spread(wait) };
    }

    /// Between half and all of `wait` milliseconds (xorshift32).
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
    fn connects_at_once_then_waits_longer_and_longer() {
        let mut session = Session::new(2, 7, Duration::ZERO);
        assert_eq!(session.poll(Duration::ZERO), Some(Act::Connect(0)));
        session.handle_lost("refused".into(), S);
        let (first, _) = session.poll_timeout().expect("waits");
        assert!(first > S && first <= S + FIRST_WAIT);
        assert_eq!(session.poll(first), Some(Act::Connect(1)));
        session.handle_lost("refused".into(), 10 * S);
        let (second, _) = session.poll_timeout().expect("waits");
        assert!(second > 10 * S && second <= 10 * S + FIRST_WAIT, "the other broker is tried as soon");
        assert_eq!(session.poll(second), Some(Act::Connect(0)));
        session.handle_lost("refused".into(), 20 * S);
        let (third, _) = session.poll_timeout().expect("waits");
        assert!(third >= 20 * S + FIRST_WAIT && third <= 20 * S + 2 * FIRST_WAIT);
        assert_eq!(session.last_error(), Some("refused"));
    }

    #[test]
    fn a_silent_link_is_dropped_and_a_delivering_one_is_kept() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        session.poll(Duration::ZERO);
        session.handle_connected(S);
        assert_eq!(session.poll(100 * S), None);
        session.handle_sent(100 * S);
        session.handle_delivery();
        assert_eq!(session.poll(200 * S), None);
        session.handle_sent(200 * S);
        session.handle_sent(210 * S);
        assert_eq!(session.poll(200 * S + SILENCE), Some(Act::Drop));
        assert!(!session.is_connected());
    }

    #[test]
    fn a_link_that_never_holds_is_tried_ever_more_rarely_and_one_that_held_soon() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        let mut now = Duration::ZERO;
        for failed in 0..5 {
            assert_eq!(session.poll(now), Some(Act::Connect(0)));
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
    fn a_new_wan_reconnects_at_once() {
        let mut session = Session::new(1, 7, Duration::ZERO);
        session.poll(Duration::ZERO);
        session.handle_connected(S);
        assert_eq!(session.handle_wan_changed(10 * S), Some(Act::Drop));
        let (at, _) = session.poll_timeout().expect("waits");
        assert!(at < 11 * S);
    }

    proptest! {
        #[test]
        fn there_is_always_a_next_attempt(lost in 0u32..200, seed: u32) {
            let mut session = Session::new(3, seed, Duration::ZERO);
            let mut now = Duration::ZERO;
            for _ in 0..lost {
                prop_assert!(matches!(session.poll(now), Some(Act::Connect(0..3))));
                session.handle_lost("gone".into(), now);
                let (next, _) = session.poll_timeout().expect("waits");
                prop_assert!(next > now && next <= now + LONGEST_WAIT);
                now = next;
            }
        }
    }
}

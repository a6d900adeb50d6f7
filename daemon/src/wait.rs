//! What the daemon's one thread waits for: descriptors, a time, signals. It ends at waking: what there is, each source is
//! asked for, and says so without blocking.

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd,
};
use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, IntoRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::atomic::{AtomicI32, Ordering},
    time::Instant,
};

/// What ends a wait.
pub struct Wait<'a> {
    descriptors: Vec<PollFd<'a>>,
    until: Instant,
}

impl<'a> Wait<'a> {
    /// Until that time, or a minute.
    pub fn until(until: Instant) -> Self {
        Self { descriptors: Vec::new(), until }
    }

    /// No longer than that either.
    pub fn no_longer(&mut self, until: Instant) {
        self.until = self.until.min(until);
    }

    /// Or until there is something to read, or an error.
    pub fn to_read(&mut self, from: BorrowedFd<'a>) {
        self.descriptors.push(PollFd::new(from, PollFlags::POLLIN));
    }

    /// Or until there is room to write, or an error.
    pub fn to_write(&mut self, to: BorrowedFd<'a>) {
        self.descriptors.push(PollFd::new(to, PollFlags::POLLOUT));
    }

    /// Waits. It may end early.
    pub fn wait(mut self) {
        let left = self.until.saturating_duration_since(Instant::now());
        // Rounded up: what is due must be so when the wait is over.
        let milliseconds = left.as_secs() * 1000 + u64::from(left.subsec_nanos().div_ceil(1_000_000));
        let timeout = u16::try_from(milliseconds.min(60_000)).map_or(PollTimeout::ZERO, PollTimeout::from);
        let _ = poll(&mut self.descriptors, timeout);
    }
}

/// Where the handler writes.
static CAUGHT: AtomicI32 = AtomicI32::new(-1);

/// What others tell by signals. One for the whole process.
pub struct Signals(UnixStream);

impl Signals {
    /// From now on these signals are caught.
    pub fn catch(signals: &[Signal]) -> io::Result<Self> {
        let (ours, handlers) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        handlers.set_nonblocking(true)?;
        CAUGHT.store(handlers.into_raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for signal in signals {
            // SAFETY: the handler calls write(2) alone, which is safe in one, and leaves errno as it was.
            unsafe { sigaction(*signal, &action) }?;
        }
        Ok(Self(ours))
    }

    /// The next one that came.
    pub fn poll(&mut self) -> Option<Signal> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        Signal::try_from(i32::from(byte[0])).ok()
    }

    /// Adds what to wait for.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        wait.to_read(self.0.as_fd());
    }
}

extern "C" fn note(signal: libc::c_int) {
    let before = Errno::last_raw();
    let to: RawFd = CAUGHT.load(Ordering::Relaxed);
    // SAFETY: it was stored before the handler was there, and is never closed.
    let to = unsafe { BorrowedFd::borrow_raw(to) };
    let _ = unistd::write(to, &[signal as u8]);
    Errno::set_raw(before);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, time::Duration};

    #[test]
    fn a_wait_ends_when_it_is_time_and_not_before() {
        let until = Instant::now() + Duration::from_micros(2500);
        Wait::until(until + Duration::from_secs(9)).shorter(until).wait();
        assert!((until..until + Duration::from_secs(5)).contains(&Instant::now()));
    }

    impl Wait<'_> {
        fn shorter(mut self, until: Instant) -> Self {
            self.no_longer(until);
            self
        }
    }

    #[test]
    fn a_wait_ends_when_there_is_something_to_read_and_the_signal_is_told() {
        let mut signals = Signals::catch(&[Signal::SIGUSR2]).unwrap();
        assert_eq!(signals.poll(), None);
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        let far = Instant::now() + Duration::from_secs(30);
        let mut wait = Wait::until(far);
        signals.enlist(&mut wait);
        wait.wait();
        assert_eq!((signals.poll(), signals.poll()), (Some(Signal::SIGUSR2), None));
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[1]).unwrap();
        let mut wait = Wait::until(far);
        wait.to_read(there.as_fd());
        wait.wait();
        assert!(Instant::now() < far);
    }
}

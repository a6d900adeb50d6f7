//! Where log lines go: to syslog on a router, to stderr in a terminal. Lines are text of ours; of libraries only
//! warnings pass, for what they say at lower levels may hold what belongs in no log.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process,
    sync::Mutex,
    time::{Duration, Instant},
};
use syslog::{Facility, LogFormat, LoggerBackend, Severity};

const SOCKET: &str = "/dev/log";
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Starts logging lines of `level` and above, to syslog where there is one and nobody watches stderr. Called
/// again, only the level changes.
pub fn init(level: LevelFilter) {
    let is_watched = io::stderr().is_terminal();
    let place = if is_watched || !Path::new(SOCKET).exists() {
        Place::Stderr
    } else {
        Place::Syslog(Syslog::at(SOCKET))
    };
    let _ = log::set_boxed_logger(Box::new(Logger { started: Instant::now(), place: Mutex::new(place) }));
    set_level(level);
}

/// Changes which lines are logged.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// One line of ours. The macros of the library say file, line and module too, which no line of ours shows: that is 80
/// bytes of program wherever something is logged.
#[inline(never)]
pub fn line(level: Level, message: fmt::Arguments<'_>) {
    log::log!(target: OURS, level, "{message}");
}

macro_rules! error_line {
    ($($message:tt)*) => { $crate::log::line(::log::Level::Error, format_args!($($message)*)) };
}
macro_rules! warn_line {
    ($($message:tt)*) => { $crate::log::line(::log::Level::Warn, format_args!($($message)*)) };
}
macro_rules! info_line {
    ($($message:tt)*) => { $crate::log::line(::log::Level::Info, format_args!($($message)*)) };
}
macro_rules! debug_line {
    ($($message:tt)*) => { $crate::log::line(::log::Level::Debug, format_args!($($message)*)) };
}
pub(crate) use {debug_line as debug, error_line as error, info_line as info, warn_line as warn};

struct Logger {
    started: Instant,
    place: Mutex<Place>,
}

enum Place {
    Stderr,
    Syslog(Syslog),
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn || metadata.target().starts_with(OURS)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Ok(mut place) = self.place.lock() else { return };
        match &mut *place {
            Place::Stderr => to_stderr(&stderr_line(self.started.elapsed(), record.level(), record.args())),
            Place::Syslog(syslog) => syslog.log(record.level(), &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

fn stderr_line(since_start: Duration, level: Level, message: &fmt::Arguments<'_>) -> String {
    format!("[{:>5}.{:03}] {level:<5} {message}\n", since_start.as_secs(), since_start.subsec_millis())
}

/// Whoever closed stderr does not want to know.
fn to_stderr(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A connection to the system's log that outlives restarts of the log daemon and never waits for it.
struct Syslog {
    path: PathBuf,
    logger: Option<syslog::Logger<LoggerBackend, Line>>,
    /// Lines that did not go out since the last that did.
    missed: u32,
}

impl Syslog {
    fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), logger: None, missed: 0 }
    }

    fn log(&mut self, level: Level, message: &str) {
        if self.missed > 0 {
            let missed = format!("{} log lines were lost: the system's log did not take them", self.missed);
            if !self.try_twice(Level::Warn, &missed) {
                self.missed = self.missed.saturating_add(1);
                return;
            }
        }
        self.missed = u32::from(!self.try_twice(level, message));
    }

    /// A log daemon that was restarted has a new socket at the old place.
    fn try_twice(&mut self, level: Level, message: &str) -> bool {
        self.try_once(level, message) || self.try_once(level, message)
    }

    fn try_once(&mut self, level: Level, message: &str) -> bool {
        if self.logger.is_none() {
            self.logger = connect(&self.path).ok();
        }
        let Some(logger) = &mut self.logger else { return false };
        let sent = match level {
            Level::Error => logger.err(message),
            Level::Warn => logger.warning(message),
            Level::Info => logger.info(message),
            Level::Debug | Level::Trace => logger.debug(message),
        };
        if sent.is_err() {
            self.logger = None;
        }
        sent.is_ok()
    }
}

fn connect(path: &Path) -> io::Result<syslog::Logger<LoggerBackend, Line>> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(syslog::Logger::new(LoggerBackend::Unix(socket), Line))
}

/// RFC 3164 without date and host: every log daemon adds its own, and the clock of a router may be wrong.
struct Line;

impl LogFormat<&str> for Line {
    fn format<W: Write>(&self, to: &mut W, severity: Severity, message: &str) -> syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        Ok(write!(to, "<{priority}>gatewrtd[{}]: {message}", process::id())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    struct LogDaemon {
        socket: UnixDatagram,
        path: PathBuf,
        _dir: TempDir,
    }

    fn log_daemon() -> LogDaemon {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        LogDaemon { socket: bind(&path), path, _dir: dir }
    }

    fn bind(path: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn read(socket: &UnixDatagram) -> String {
        let mut line = [0; 4096];
        let length = socket.recv(&mut line).expect("a line in time");
        String::from_utf8(line[..length].to_vec()).unwrap()
    }

    #[test]
    fn syslog_lines_have_priority_and_name() {
        let daemon = log_daemon();
        let mut syslog = Syslog::at(&daemon.path);
        let id = process::id();
        for (level, priority) in
            [(Level::Error, 27), (Level::Warn, 28), (Level::Info, 30), (Level::Debug, 31), (Level::Trace, 31)]
        {
            syslog.log(level, "all is well");
            assert_eq!(read(&daemon.socket), format!("<{priority}>gatewrtd[{id}]: all is well"));
        }
    }

    #[test]
    fn a_restarted_log_daemon_gets_the_next_line() {
        let mut daemon = log_daemon();
        let mut syslog = Syslog::at(&daemon.path);
        syslog.log(Level::Info, "one");
        read(&daemon.socket);
        std::fs::remove_file(&daemon.path).unwrap();
        daemon.socket = bind(&daemon.path);
        syslog.log(Level::Info, "two");
        assert!(read(&daemon.socket).ends_with(": two"));
    }

    #[test]
    fn a_log_daemon_that_does_not_read_delays_no_one_and_misses_are_counted() {
        let daemon = log_daemon();
        let mut syslog = Syslog::at(&daemon.path);
        while syslog.missed < 3 {
            syslog.log(Level::Info, "line");
        }
        let taken = std::iter::from_fn(|| {
            daemon.socket.set_nonblocking(true).unwrap();
            daemon.socket.recv(&mut [0; 100]).ok()
        });
        assert!(taken.count() > 0);
        syslog.log(Level::Info, "later");
        daemon.socket.set_nonblocking(false).unwrap();
        assert!(read(&daemon.socket).contains(": 3 log lines were lost"));
        assert!(read(&daemon.socket).ends_with(": later"));
    }

    #[test]
    fn stderr_lines_have_level_and_time_since_start() {
        let line = stderr_line(Duration::from_millis(12_345), Level::Info, &format_args!("up"));
        assert_eq!(line, "[   12.345] INFO  up\n");
    }

    #[test]
    fn libraries_may_warn_and_no_more() {
        let logger = Logger { started: Instant::now(), place: Mutex::new(Place::Stderr) };
        let passes = |level, target| logger.enabled(&Metadata::builder().level(level).target(target).build());
        assert!(passes(Level::Trace, "gatewrt::core") && passes(Level::Warn, "rumqttc"));
        assert!(!passes(Level::Info, "rumqttc") && !passes(Level::Trace, "rustls::client"));
    }
}

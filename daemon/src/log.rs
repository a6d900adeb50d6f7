//! Log output: to syslog on a router, to stderr in a terminal. Of libraries only warnings pass: their lower levels may
//! contain keys or tokens.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process,
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use syslog::{Facility, LogFormat, LoggerBackend, Severity};

const SOCKET: &str = "/dev/log";
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Starts to log lines of `level` and above, to syslog where it exists and stderr is no terminal. A second call changes
/// the level alone.
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

/// Changes the level from which lines are logged.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

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

/// Writes a log line to stderr. A closed stderr is no error.
fn to_stderr(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Connection to syslog that outlives restarts of the log daemon and never blocks.
struct Syslog {
    path: PathBuf,
    logger: Option<syslog::Logger<LoggerBackend, Line>>,
    /// Number of lines lost since the last that was sent.
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

    /// Sends a line to syslog, with a second attempt if the first fails: a restarted log daemon has a new socket at the
    /// old path.
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

/// Format of a line to syslog, that of RFC 3164 without the host, as libc's `syslog` sends it. Every log daemon has a
/// date of its own, but OpenWrt's takes whatever stands before a blank at the 16th byte for the date of the line.
struct Line;

/// Date of RFC 3164, such as “Dec  1 15:22:41”, from seconds since 1970 in UTC.
fn date(seconds: u64) -> String {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    // Years begin in March here, so that a leap day is the last of one. 719468 days before 1970-01-01 is 0000-03-01.
    let day = seconds / 86_400 + 719_468;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = ((month + 2) % 12 * 3) as usize;
    let name = String::from_utf8_lossy(MONTHS.get(month..month + 3).unwrap_or_default());
    let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    format!("{name} {day:2} {hour:02}:{minute:02}:{second:02}")
}

impl LogFormat<&str> for Line {
    fn format<W: Write>(&self, to: &mut W, severity: Severity, message: &str) -> syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(write!(to, "<{priority}>{} gatewrtd[{}]: {message}", date(since_1970.as_secs()), process::id())?)
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
    fn syslog_line_has_priority_and_name() {
        let daemon = log_daemon();
        let mut syslog = Syslog::at(&daemon.path);
        let id = process::id();
        for (level, priority) in
            [(Level::Error, 27), (Level::Warn, 28), (Level::Info, 30), (Level::Debug, 31), (Level::Trace, 31)]
        {
            syslog.log(level, "all is well");
            let line = read(&daemon.socket);
            let (head, rest) = line.split_once('>').unwrap();
            assert_eq!(head, format!("<{priority}"));
            assert_eq!((&rest[15..16], &rest[16..]), (" ", format!("gatewrtd[{id}]: all is well").as_str()));
        }
    }

    #[test]
    fn date_of_a_line_has_fifteen_bytes() {
        for (seconds, text) in [
            (0, "Jan  1 00:00:00"),
            (951_782_399, "Feb 28 23:59:59"),
            (951_782_400, "Feb 29 00:00:00"),
            (951_868_800, "Mar  1 00:00:00"),
            (1_796_138_561, "Dec  1 15:22:41"),
            (4_107_542_400, "Mar  1 00:00:00"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn restarted_log_daemon_gets_the_next_line() {
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
    fn stuck_log_daemon_delays_nothing_and_lost_lines_are_counted() {
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
    fn stderr_line_has_level_and_time_since_start() {
        let line = stderr_line(Duration::from_millis(12_345), Level::Info, &format_args!("up"));
        assert_eq!(line, "[   12.345] INFO  up\n");
    }

    #[test]
    fn library_lines_below_warning_are_dropped() {
        let logger = Logger { started: Instant::now(), place: Mutex::new(Place::Stderr) };
        let passes = |level, target| logger.enabled(&Metadata::builder().level(level).target(target).build());
        assert!(passes(Level::Trace, "gatewrt::core") && passes(Level::Warn, "rumqttc"));
        assert!(!passes(Level::Info, "rumqttc") && !passes(Level::Trace, "rustls::client"));
    }
}

//! Log of the program on stderr. It is paced: of each kind of line a few are written in an interval, and the rest is
//! counted. So nobody can fill the disk with lines, whatever he does and whichever part or library writes them.
//!
//! A kind is the place in the source that writes the line, and the service if it names one. Lines about a caller have
//! its address as the field `from`; the count says which address most were about.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
    io::IsTerminal,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// Interval in which lines of one kind are counted.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines of one kind that are written in an interval.
const BURST: u32 = 10;
/// Addresses that are counted for one kind in an interval.
const SOURCES: usize = 256;
/// Target of the lines with counts, which are not paced.
const TARGET: &str = module_path!();

/// Starts the log. `GATEWRT_LOG` selects messages in the syntax of `RUST_LOG`.
pub fn start() {
    let filter = std::env::var("GATEWRT_LOG").unwrap_or_else(|_| "info,rmqtt=warn,sqlx=warn".into());
    let output = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let pacing = Pacing::default();
    tracing_subscriber::registry().with(EnvFilter::new(filter)).with(pacing.clone()).with(output).init();
    thread::spawn(move || {
        loop {
            thread::sleep(INTERVAL);
            pacing.end_interval();
        }
    });
}

/// Layer that lets the first lines of a kind through in each interval, and counts the rest.
#[derive(Clone, Default)]
struct Pacing(Arc<Mutex<BTreeMap<Kind, Count>>>);

impl Pacing {
    /// Writes what was counted, and begins to count anew.
    fn end_interval(&self) {
        let counted = std::mem::take(&mut *self.counts());
        for (kind, count) in counted.into_iter().filter(|(_, count)| count.suppressed > 0) {
            let text = count.summary(&kind.service);
            match count.level {
                Level::ERROR => tracing::error!(target: TARGET, "{text}"),
                Level::WARN => tracing::warn!(target: TARGET, "{text}"),
                Level::INFO => tracing::info!(target: TARGET, "{text}"),
                _ => tracing::debug!(target: TARGET, "{text}"),
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Kind, Count>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl<S: Subscriber> Layer<S> for Pacing {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == TARGET {
            return true;
        }
        let mut line = Line {
            kind: Kind {
                target: metadata.target().to_owned(),
                number: metadata.line().unwrap_or_default().into(),
                service: String::new(),
            },
            message: String::new(),
            from: None,
        };
        event.record(&mut line);
        let kind = std::mem::take(&mut line.kind);
        self.counts().entry(kind).or_insert_with(|| Count::new(*metadata.level())).admit(line)
    }
}

/// Kind of a line: where it was written, and for which service.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    target: String,
    number: u64,
    service: String,
}

/// Line as it is seen before it is written.
struct Line {
    kind: Kind,
    message: String,
    from: Option<String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => {
                let _ = write!(self.message, "{value:?}");
            }
            "from" => self.from = Some(format!("{value:?}")),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "service" => value.clone_into(&mut self.kind.service),
            // Lines of libraries that use the crate `log` are all written in one place.
            "log.target" => value.clone_into(&mut self.kind.target),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.kind.number = value;
        }
    }
}

/// Count of the lines of one kind in an interval.
struct Count {
    level: Level,
    written: u32,
    suppressed: u64,
    last: String,
    sources: BTreeMap<String, u64>,
}

impl Count {
    fn new(level: Level) -> Self {
        Self { level, written: 0, suppressed: 0, last: String::new(), sources: BTreeMap::new() }
    }

    /// True if a line may be written.
    fn admit(&mut self, line: Line) -> bool {
        if self.written < BURST {
            self.written += 1;
            return true;
        }
        self.suppressed += 1;
        self.last = line.message;
        if let Some(from) = line.from
            && (self.sources.len() < SOURCES || self.sources.contains_key(&from))
        {
            *self.sources.entry(from).or_default() += 1;
        }
        false
    }

    fn summary(&self, service: &str) -> String {
        let most = self.sources.iter().max_by_key(|(_, count)| **count);
        let most = most.map(|(from, count)| match *count == self.suppressed {
            true => format!(" from {from}"),
            false => format!(", {count} of them from {from}"),
        });
        let (count, most, seconds) = (self.suppressed, most.unwrap_or_default(), INTERVAL.as_secs());
        let of = if service.is_empty() { String::new() } else { format!("{service}: ") };
        format!("… and {count} more{most} in the last {seconds} s: {of}{}", self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Output that the test reads.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Lines that the log has of what `write` does in an interval, and then of its end.
    fn lines(write: impl FnOnce(&Pacing)) -> [Vec<String>; 2] {
        let (pacing, written) = (Pacing::default(), Written::default());
        let to = written.clone();
        let output =
            tracing_subscriber::fmt::layer().with_writer(move || to.clone()).with_ansi(false).without_time();
        let filter = EnvFilter::new("info");
        let log = tracing_subscriber::registry().with(filter).with(pacing.clone()).with(output);
        let take = || {
            let text = String::from_utf8(std::mem::take(&mut *written.0.lock().unwrap())).unwrap();
            text.lines().map(str::to_owned).collect()
        };
        tracing::subscriber::with_default(log, || {
            write(&pacing);
            let before = take();
            pacing.end_interval();
            [before, take()]
        })
    }

    fn refuse(service: &str, from: &str) {
        tracing::warn!(service, %from, "refused: {}", 1 + 1);
    }

    #[test]
    fn flood_of_one_kind_leaves_a_few_lines_and_a_count() {
        let [before, after] = lines(|_| {
            refuse("MQTT", "192.0.2.9");
            (0..1000).for_each(|_| refuse("HTTPS", "192.0.2.1"));
            (0..3).for_each(|_| refuse("HTTPS", "192.0.2.2"));
            refuse("MQTT", "192.0.2.9");
            tracing::info!("another kind");
        });
        assert_eq!(before.len(), BURST as usize + 3, "{before:?}");
        assert!(before.last().unwrap().contains("another kind"));
        let [count] = &after[..] else { panic!("{after:?}") };
        let expected = "… and 993 more, 990 of them from 192.0.2.1 in the last 10 s: HTTPS: refused: 2";
        assert!(count.trim_start().starts_with("WARN") && count.ends_with(expected), "{count}");
    }

    #[test]
    fn count_of_one_caller_names_it() {
        let [_, after] = lines(|_| (0..12).for_each(|_| refuse("", "192.0.2.1")));
        assert!(after[0].ends_with("… and 2 more from 192.0.2.1 in the last 10 s: refused: 2"), "{after:?}");
    }

    #[test]
    fn counting_begins_anew_in_each_interval() {
        let [lines, after] = lines(|pacing| {
            (0..50).for_each(|_| refuse("HTTPS", "192.0.2.1"));
            pacing.end_interval();
            refuse("HTTPS", "192.0.2.1");
        });
        assert_eq!((lines.len(), after.len()), (BURST as usize + 2, 0), "{lines:?}");
    }

    #[test]
    fn what_the_filter_drops_is_not_counted() {
        assert_eq!(
            lines(|_| (0..50).for_each(|_| tracing::debug!("detail"))),
            [Vec::<String>::new(), Vec::new()]
        );
    }
}

//! The last good records of one network on flash: written only when they differ from what is there, and not
//! too often. The file has a line `<topic> <signed text>` a record, and one with the checksum of all these,
//! since what stands here is believed without its signatures being checked again.

use super::{StoreError, atomic};
use crate::sorted::SortedMap;
use gatewrt_protocol::base::HEX;
use ring::digest::{Context, SHA256};
use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

/// Topics and signed texts. Neither ever has white space in it.
pub type Records = SortedMap<String, String>;

/// How many writes may follow each other at once.
const BURST: u32 = 8;
/// How long until one more is allowed.
const REFILL: Duration = Duration::from_secs(3600);

/// What became of records that were to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// They are on flash now.
    Written,
    /// They were there already.
    Unchanged,
    /// Flash is spared: offer them again after this time.
    Later(Duration),
}

/// The file of one network's records.
#[derive(Debug)]
pub struct RecordsFile {
    path: PathBuf,
    /// Of the content on flash, as far as it is known.
    stored: Option<String>,
    bucket: Bucket,
}

impl RecordsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stored: None, bucket: Bucket::new(BURST, REFILL) }
    }

    /// Topics and signed texts as they were kept last; none when there are none. A damaged file is absent too,
    /// and the error says so.
    pub fn load(&mut self) -> (Records, Option<StoreError>) {
        match self.read() {
            Ok(records) => (records, None),
            Err(error) => (Records::new(), Some(error)),
        }
    }

    /// Keeps `records` unless they are there already or the last writes were too recent.
    pub fn save(&mut self, records: &Records, now: Duration) -> Result<Saved, StoreError> {
        let checksum = checksum(records);
        if self.stored.as_ref() == Some(&checksum) {
            return Ok(Saved::Unchanged);
        }
        match self.bucket.take(now) {
            Ok(()) => self.write(records, checksum),
            Err(wait) => Ok(Saved::Later(wait)),
        }
    }

    /// Keeps `records` at once: for a clean stop.
    pub fn flush(&mut self, records: &Records) -> Result<Saved, StoreError> {
        let checksum = checksum(records);
        if self.stored.as_ref() == Some(&checksum) {
            Ok(Saved::Unchanged)
        } else {
            self.write(records, checksum)
        }
    }

    /// Removes the file, as far as that can be done.
    pub fn remove(&mut self) {
        self.stored = None;
        let _ = std::fs::remove_file(&self.path);
    }

    fn read(&mut self) -> Result<Records, StoreError> {
        let Some(bytes) = super::read(&self.path)? else { return Ok(Records::new()) };
        let damaged = |why: &str| StoreError::DamagedRecords { path: self.path.clone(), why: why.to_owned() };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text"))?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let records: Records = lines.map(|(topic, record)| (topic.to_owned(), record.to_owned())).collect();
        let checksum = checksum(&records);
        if text.lines().last() != Some(&checksum) {
            return Err(damaged("its checksum does not fit"));
        }
        self.stored = Some(checksum);
        Ok(records)
    }

    fn write(&mut self, records: &Records, checksum: String) -> Result<Saved, StoreError> {
        let filled = atomic::write(&self.path, &mut |file| {
            each_line(records, |part| file.write_all(part))?;
            writeln!(file, "{checksum}")
        });
        filled.map_err(StoreError::at(&self.path))?;
        self.stored = Some(checksum);
        Ok(Saved::Written)
    }
}

/// Of the lines as they are written, without holding them in memory.
fn checksum(records: &Records) -> String {
    let mut context = Context::new(&SHA256);
    let hashed = each_line(records, |part| {
        context.update(part);
        Ok(())
    });
    hashed.expect("hashing never fails");
    HEX.encode(context.finish().as_ref())
}

fn each_line(records: &Records, mut put: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    records.iter().try_for_each(|(topic, record)| {
        [topic.as_str(), " ", record, "\n"].iter().try_for_each(|part| put(part.as_bytes()))
    })
}

/// A token bucket: `burst` at once, then one a `refill`.
#[derive(Debug, Clone)]
pub struct Bucket {
    burst: u32,
    refill: Duration,
    tokens: u32,
    /// Since when the next token is growing.
    since: Duration,
}

impl Bucket {
    /// A full bucket.
    pub fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, tokens: burst, since: Duration::ZERO }
    }

    /// Takes a token, or says how long there is none. `now` is any clock that never goes back.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.grow(now);
        if self.tokens == 0 {
            return Err((self.since + self.refill).saturating_sub(now));
        }
        self.tokens -= 1;
        Ok(())
    }

    fn grow(&mut self, now: Duration) {
        while self.tokens < self.burst && now >= self.since + self.refill {
            self.tokens += 1;
            self.since += self.refill;
        }
        if self.tokens == self.burst {
            self.since = now;
        }
    }
}

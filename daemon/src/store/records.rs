//! The last good records of one network on flash: written only when they differ from what is there, and not
//! too often. The file is a line of JSON, topic to signed text, and a line with its checksum, since what
//! stands here is believed without its signatures being checked again.

use super::{StoreError, atomic};
use data_encoding::HEXLOWER;
use ring::digest::{Context, Digest, SHA256};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

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
    pub fn load(&mut self) -> (BTreeMap<String, String>, Option<StoreError>) {
        match self.read() {
            Ok(records) => (records, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        }
    }

    /// Keeps `records` unless they are there already or the last writes were too recent.
    pub fn save(&mut self, records: &BTreeMap<String, String>, now: Duration) -> Result<Saved, StoreError> {
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
    pub fn flush(&mut self, records: &BTreeMap<String, String>) -> Result<Saved, StoreError> {
        let checksum = checksum(records);
        if self.stored.as_ref() == Some(&checksum) {
            Ok(Saved::Unchanged)
        } else {
            self.write(records, checksum)
        }
    }

    fn read(&mut self) -> Result<BTreeMap<String, String>, StoreError> {
        let Some(bytes) = super::read(&self.path)? else { return Ok(BTreeMap::new()) };
        let damaged = |why: &str| StoreError::DamagedRecords { path: self.path.clone(), why: why.to_owned() };
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let (line, sum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut context = Context::new(&SHA256);
        context.update(line);
        let checksum = hex(&context.finish());
        if sum != format!("\"{checksum}\"").as_bytes() {
            return Err(damaged("its checksum does not fit"));
        }
        let records = serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))?;
        self.stored = Some(checksum);
        Ok(records)
    }

    fn write(&mut self, records: &BTreeMap<String, String>, checksum: String) -> Result<Saved, StoreError> {
        let filled = atomic::write(&self.path, |file| {
            serde_json::to_writer(&mut *file, records)?;
            write!(file, "\n\"{checksum}\"\n")
        });
        filled.map_err(StoreError::at(&self.path))?;
        self.stored = Some(checksum);
        Ok(Saved::Written)
    }
}

/// Of the line of JSON, without holding it in memory.
fn checksum(records: &BTreeMap<String, String>) -> String {
    let mut hashing = Hashing(Context::new(&SHA256));
    serde_json::to_writer(&mut hashing, records).expect("texts are always JSON, and hashing never fails");
    hex(&hashing.0.finish())
}

fn hex(digest: &Digest) -> String {
    HEXLOWER.encode(digest.as_ref())
}

struct Hashing(Context);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

//! Last good records of one network on flash: written only when they differ from the file, and rate-limited. The file
//! has a line `<topic> <signed text>` for each record and one with the checksum of them all, since records from it are
//! believed without a check of their signatures.

use super::StoreError;
use crate::{atomic_file, core::rate_limit::TokenBucket};
use data_encoding::HEXLOWER;
use litemap::LiteMap;
use ring::digest::{Context, SHA256};
use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

/// Records of a network: signed texts by topic. Neither ever has white space in it.
pub type Records = LiteMap<String, String>;

/// Number of writes that may follow each other at once.
const BURST: u32 = 8;
/// Time until one more write is allowed.
const REFILL: Duration = Duration::from_secs(3600);

/// Outcome of saving the records of a network to flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// Written to flash now.
    Written,
    /// On flash already.
    Unchanged,
    /// Rate limit reached: offer them again after this time.
    Later(Duration),
}

/// File with the last good records of one network, on flash.
#[derive(Debug)]
pub struct RecordsFile {
    path: PathBuf,
    /// Checksum of the content on flash, as far as it is known.
    stored: Option<String>,
    bucket: TokenBucket,
}

impl RecordsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stored: None, bucket: TokenBucket::new(BURST, REFILL) }
    }

    /// Loads the records in the file; empty when there is none. A damaged file counts as absent, and the error says so.
    pub fn load(&mut self) -> (Records, Option<StoreError>) {
        match self.read() {
            Ok(records) => (records, None),
            Err(error) => (Records::new(), Some(error)),
        }
    }

    /// Saves `records` unless they are on flash already or the last writes were too recent.
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

    /// Saves `records` at once, without the rate limit: for a clean stop.
    pub fn flush(&mut self, records: &Records) -> Result<Saved, StoreError> {
        let checksum = checksum(records);
        if self.stored.as_ref() == Some(&checksum) {
            Ok(Saved::Unchanged)
        } else {
            self.write(records, checksum)
        }
    }

    /// Removes the file of records, as far as that can be done.
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
        let filled = atomic_file::write(&self.path, &mut |file| {
            each_line(records, |part| file.write_all(part))?;
            writeln!(file, "{checksum}")
        });
        filled.map_err(StoreError::at(&self.path))?;
        self.stored = Some(checksum);
        Ok(Saved::Written)
    }
}

/// SHA-256 of the lines of a records file, in lower-case hexadecimal, without holding them in memory.
fn checksum(records: &Records) -> String {
    let mut context = Context::new(&SHA256);
    let hashed = each_line(records, |part| {
        context.update(part);
        Ok(())
    });
    hashed.expect("hashing never fails");
    HEXLOWER.encode(context.finish().as_ref())
}

fn each_line(records: &Records, mut put: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    records.iter().try_for_each(|(topic, record)| {
        [topic.as_str(), " ", record, "\n"].iter().try_for_each(|part| put(part.as_bytes()))
    })
}

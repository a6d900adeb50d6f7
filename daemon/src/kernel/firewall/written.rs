//! Record of the table as written, on the run-time disk. nft and iptables list a table in other words than it was written
//! in, so a table counts as ours while its listing is the one that was read right after writing.

use crate::{
    kernel::{KernelError, record},
    model::{FirewallTable, Ruleset},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};

/// Firewall table as it was written last.
pub struct Written {
    table: Arc<FirewallTable>,
    /// Digest of the listing right after writing.
    listing: String,
}

/// Content of the file that records the firewall table as written.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    table: T,
    /// Digest of what was written: another version of this program may render the same table otherwise.
    script: String,
    listing: String,
}

impl Written {
    /// Loads the record of the firewall table that an earlier run wrote, unless `render` gives another script for it
    /// now.
    pub fn load(path: &Path, render: &dyn Fn(&FirewallTable) -> String) -> Option<Self> {
        let Record::<FirewallTable> { table, script, listing } = record::load(path)?;
        (digest(&render(&table)) == script).then(|| Self { table: Arc::new(table), listing })
    }

    /// Records that a firewall table was written as `script`, and read back as `listing`.
    pub fn save(
        path: &Path,
        table: &Arc<FirewallTable>,
        script: &str,
        listing: &str,
    ) -> Result<Self, KernelError> {
        let content = Record { table: &**table, script: digest(script), listing: digest(listing) };
        record::save(path, &content)?;
        Ok(Self { table: table.clone(), listing: content.listing })
    }

    /// Firewall table that has this listing: the one that was written, or an unknown one.
    pub fn known(written: Option<&Self>, listing: &str) -> Ruleset {
        match written.filter(|written| written.listing == digest(listing)) {
            Some(written) => Ruleset::Known(written.table.clone()),
            None => Ruleset::Unknown,
        }
    }

    /// Deletes the record of the firewall table as written.
    pub fn forget(path: &Path) {
        record::forget(path);
    }
}

fn digest(text: &str) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

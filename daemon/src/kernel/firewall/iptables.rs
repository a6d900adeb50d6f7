//! iptables, where the kernel has no nftables: our chains are written by `iptables-restore`, one family at a time, each
//! table of iptables at once.

mod compile;
mod words;

pub use compile::{ours, script};

use super::written::Written;
use crate::{
    kernel::{KernelError, process},
    model::{
        BaseChain, Chain, ChainPolicy, ChainType, Family, FirewallRule, FirewallTable, Hook, IfName,
        Interfaces, Match, Op, Priority, Ruleset, Statement,
    },
    ownership::INTERFACE_PREFIX,
    plan::TableUpdate,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time for which a listing counts: the kernel does not tell when these tables change.
const FRESH: Duration = Duration::from_secs(30);

const INSTALL: &str = "nftables, or iptables and ip6tables";

/// Driver that keeps our firewall table as chains of iptables and ip6tables.
pub struct Iptables {
    program: String,
    record: PathBuf,
    written: Option<Written>,
    seen: Option<Seen>,
}

/// Our iptables chains as last read, and the time of it.
struct Seen {
    at: Instant,
    /// Generation of nftables then, which tells of changes where nftables does iptables' work.
    generation: Option<u32>,
    ruleset: Option<Ruleset>,
}

impl Iptables {
    /// iptables driver for the programs whose names begin with `program`, before `-restore` and `-save`. It remembers
    /// in `folder` what it wrote.
    pub fn new(program: String, folder: &Path) -> Self {
        let record = folder.join("ruleset-iptables");
        let written = Written::load(&record, &both);
        Self { program, record, written, seen: None }
    }

    /// True if the program `iptables-restore` is there.
    pub fn is_there(&self) -> bool {
        process::find(&self.restore(Family::V4)).is_some()
    }

    /// Program that writes iptables chains of a family: `iptables-restore` or `ip6tables-restore`.
    pub fn restore(&self, family: Family) -> String {
        self.named(family, "restore")
    }

    /// Reads our firewall table from the iptables chains that the kernel has; `None` where there is none. `generation`
    /// is that of nftables.
    pub fn observe(&mut self, generation: Option<u32>) -> Option<Ruleset> {
        let is_fresh = |seen: &&Seen| seen.at.elapsed() < FRESH && seen.generation == generation;
        if let Some(seen) = self.seen.as_ref().filter(is_fresh) {
            return seen.ruleset.clone();
        }
        let ruleset = match self.list() {
            Ok(listing) if listing.is_empty() => None,
            Ok(listing) => Some(Written::known(self.written.as_ref(), &listing)),
            Err(KernelError::Missing(_)) => None,
            // Chains that can't be read must be written again: that reports what is wrong.
            Err(_) => Some(Ruleset::Unknown),
        };
        self.seen = Some(Seen { at: Instant::now(), generation, ruleset: ruleset.clone() });
        ruleset
    }

    /// Writes our iptables chains, always whole: `iptables-restore` replaces a table at once. If they can't be written,
    /// nothing passes our interfaces, unless older chains guard them.
    pub fn write(&mut self, update: &TableUpdate) -> Result<(), KernelError> {
        self.forget();
        let mut outcome = Ok(());
        for &family in families() {
            let written = self.write_family(&update.table, family);
            outcome = outcome.and(written);
        }
        outcome?;
        self.written = Some(Written::save(&self.record, &update.table, &both(&update.table), &self.list()?)?);
        Ok(())
    }

    fn write_family(&self, table: &FirewallTable, family: Family) -> Result<(), KernelError> {
        let saved = self.save(family)?;
        let outcome = self.restore_to(&saved, table, family);
        if outcome.is_err() && ours(&saved).is_empty() {
            self.restore_to(&self.save(family)?, &closed(), family)?;
        }
        outcome
    }

    /// Deletes our iptables chains.
    pub fn delete(&mut self) -> Result<(), KernelError> {
        if self.written.is_none() && self.observe(None).is_none() {
            return Ok(());
        }
        self.forget();
        for &family in families() {
            self.restore_to(&self.save(family)?, &FirewallTable::default(), family)?;
        }
        Ok(())
    }

    /// Deletes our iptables chains of an earlier run, now that nftables is used.
    pub fn give_way(&mut self) {
        if self.written.is_some()
            && let Err(error) = self.delete()
        {
            log::warn!("our iptables chains are left: {error}");
        }
    }

    fn forget(&mut self) {
        (self.seen, self.written) = (None, None);
        Written::forget(&self.record);
    }

    fn restore_to(&self, saved: &str, table: &FirewallTable, family: Family) -> Result<(), KernelError> {
        let script = script(saved, table, family);
        match script.is_empty() {
            true => Ok(()),
            false => process::ask(&self.restore(family), &["--noflush", "-w"], &script, INSTALL).map(drop),
        }
    }

    fn list(&self) -> Result<String, KernelError> {
        let mut all = String::new();
        for &family in families() {
            all += &ours(&self.save(family)?);
        }
        Ok(all)
    }

    fn save(&self, family: Family) -> Result<String, KernelError> {
        process::ask(&self.named(family, "save"), &[], "", INSTALL)
    }

    fn named(&self, family: Family, what: &str) -> String {
        let program = match family {
            Family::V4 => self.program.clone(),
            Family::V6 => self.program.replace("iptables", "ip6tables"),
        };
        format!("{program}-{what}")
    }
}

/// Address families that the kernel has.
fn families() -> &'static [Family] {
    if Path::new("/proc/net/if_inet6").exists() { &Family::ALL } else { &[Family::V4] }
}

/// Scripts for `iptables-restore` that write a firewall table, those of both families in one text.
fn both(table: &FirewallTable) -> String {
    Family::ALL.map(|family| script("", table, family)).concat()
}

/// Firewall table that lets nothing through interfaces of ours, for when the right one can't be written.
fn closed() -> FirewallTable {
    let base = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Forward,
        priority: Priority::Filter,
        policy: ChainPolicy::Accept,
    };
    let drop = |matched| FirewallRule::new(vec![matched], Statement::Drop);
    // “+” is iptables' wildcard.
    let ours = || IfName::new(&format!("{INTERFACE_PREFIX}+")).map(Interfaces::One);
    let sides = [ours().map(|ours| Match::Iif(Op::Is, ours)), ours().map(|ours| Match::Oif(Op::Is, ours))];
    let rules = sides.into_iter().flatten().map(drop).collect();
    FirewallTable {
        sets: Vec::new(),
        chains: vec![Chain { name: "forward".into(), base: Some(base), rules }],
    }
}

#[cfg(test)]
mod tests;

//! Our chains where there is no nftables: written by `iptables-restore`, a family and a table at a time, each of them at
//! once. What the rules are is [`plan::iptables`](crate::plan::iptables)'s matter.

use super::{KernelError, firewall::digest, process, record};
use crate::{
    log,
    model::{Family, Ruleset},
    plan::iptables::{CLOSED, change, ours},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long what was seen is taken to be so: the kernel does not tell when these tables change.
const FRESH: Duration = Duration::from_secs(30);

const INSTALL: &str = "nftables, or iptables and ip6tables";

/// The kernel's older firewall, as far as our chains go.
pub struct Iptables {
    program: String,
    record: PathBuf,
    written: Option<(Ruleset, String)>,
    seen: Option<(Instant, Option<u32>, Option<Ruleset>)>,
}

impl Iptables {
    /// `program` is what `-restore` and `-save` follow; what was written is remembered in `folder`.
    pub fn new(program: String, folder: &Path) -> Self {
        let record = folder.join("ruleset-iptables");
        let written =
            record::load(&record).map(|(text, listing): (String, String)| (Ruleset(text.into()), listing));
        Self { program, record, written, seen: None }
    }

    /// Whether the programs are there.
    pub fn is_there(&self) -> bool {
        process::find(&self.restore(Family::V4)).is_some()
    }

    /// The program that writes chains.
    pub fn restore(&self, family: Family) -> String {
        self.named(family, "restore")
    }

    /// As [`super::firewall::Firewall::observe`]. `generation` tells of changes where nftables does the work.
    pub fn observe(&mut self, generation: Option<u32>) -> Option<Ruleset> {
        let fresh = |(at, then, _): &&(Instant, Option<u32>, Option<Ruleset>)| {
            at.elapsed() < FRESH && *then == generation
        };
        if let Some((_, _, ruleset)) = self.seen.as_ref().filter(fresh) {
            return ruleset.clone();
        }
        let ruleset = match self.list() {
            Ok(listing) if listing.is_empty() => None,
            Ok(listing) => {
                let ours = self.written.as_ref().filter(|(_, written)| *written == digest(&listing));
                Some(ours.map_or_else(|| Ruleset(listing.into()), |(ruleset, _)| ruleset.clone()))
            }
            Err(KernelError::Missing(_)) => None,
            // Must be written anew; that will say what is wrong.
            Err(_) => Some(Ruleset("".into())),
        };
        self.seen = Some((Instant::now(), generation, ruleset.clone()));
        ruleset
    }

    /// Writes our chains. What can't be written lets nothing through our interfaces, unless what stands guards them.
    pub fn write(&mut self, ruleset: &Ruleset) -> Result<(), KernelError> {
        self.forget();
        let mut outcome = Ok(());
        for &family in families() {
            let written = self.write_family(&ruleset.0, family);
            outcome = outcome.and(written);
        }
        outcome?;
        let listing = digest(&self.list()?);
        record::save(&self.record, &(&*ruleset.0, &*listing))?;
        self.written = Some((ruleset.clone(), listing));
        Ok(())
    }

    fn write_family(&self, text: &str, family: Family) -> Result<(), KernelError> {
        let saved = self.save(family)?;
        let outcome = self.become_(&saved, text, family);
        if outcome.is_err() && ours(&saved).is_empty() {
            let saved = self.save(family)?;
            self.become_(&saved, CLOSED, family)?;
        }
        outcome
    }

    /// Deletes our chains.
    pub fn delete(&mut self) -> Result<(), KernelError> {
        if self.written.is_none() && self.observe(None).is_none() {
            return Ok(());
        }
        self.forget();
        for &family in families() {
            self.become_(&self.save(family)?, "", family)?;
        }
        Ok(())
    }

    /// Deletes what a predecessor left that used iptables.
    pub fn give_way(&mut self) {
        if self.written.is_some()
            && let Err(error) = self.delete()
        {
            log::warn!("our iptables chains are left: {error}");
        }
    }

    fn forget(&mut self) {
        (self.seen, self.written) = (None, None);
        record::forget(&self.record);
    }

    fn become_(&self, saved: &str, text: &str, family: Family) -> Result<(), KernelError> {
        let unsaid = |rule| KernelError::Refused(format!("iptables can't say {rule}: install nftables"));
        let change = change(saved, text, family).map_err(unsaid)?;
        match change.is_empty() {
            true => Ok(()),
            false => process::ask(&self.restore(family), &["--noflush", "-w"], &change, INSTALL).map(drop),
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

/// Those that the kernel has.
fn families() -> &'static [Family] {
    if Path::new("/proc/net/if_inet6").exists() { &Family::ALL } else { &[Family::V4] }
}

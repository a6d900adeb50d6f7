//! Impairments of the Internet: loss, partitions and isolation, as rules on the core.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::PoisonError;

use anyhow::{Result, ensure};

use super::Lab;
use super::topology::CORE;

/// Impairments in force, by the attachments to the core that they concern.
#[derive(Default)]
pub(crate) struct Impairments {
    loss: BTreeMap<String, u8>,
    cut: BTreeSet<(String, String)>,
    isolated: BTreeSet<String>,
}

impl Lab {
    /// Drops this percentage (0 to 100) of the packets from and to a host, at random; 0 ends it. For a host behind a
    /// NAT box, this and the functions below affect everything behind the box.
    pub fn set_loss(&self, host: &str, percent: u8) -> Result<()> {
        ensure!(percent <= 100, "{percent} % is more than everything");
        let edge = self.machine.layout().edge(host)?;
        self.impair(|now| {
            let _ = now.loss.insert(edge, percent);
        })
    }

    /// Cuts two hosts off from each other; both still reach everyone else.
    pub fn partition(&self, a: &str, b: &str) -> Result<()> {
        let pair = (self.machine.layout().edge(a)?, self.machine.layout().edge(b)?);
        self.impair(|now| {
            let _ = now.cut.insert(pair);
        })
    }

    /// Cuts a host off from everyone.
    pub fn isolate(&self, host: &str) -> Result<()> {
        let edge = self.machine.layout().edge(host)?;
        self.impair(|now| {
            let _ = now.isolated.insert(edge);
        })
    }

    /// Ends all loss, partitions and isolation.
    pub fn heal(&self) -> Result<()> {
        self.impair(|now| *now = Impairments::default())
    }

    fn impair(&self, change: impl FnOnce(&mut Impairments)) -> Result<()> {
        let mut now = self.impairments.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        self.machine.load_rules(CORE, &now.rules())
    }
}

impl Impairments {
    fn rules(&self) -> String {
        let mut rules = String::new();
        for host in &self.isolated {
            let _ = writeln!(rules, "  iifname \"{host}\" drop\n  oifname \"{host}\" drop");
        }
        for (a, b) in &self.cut {
            let _ = writeln!(
                rules,
                "  iifname \"{a}\" oifname \"{b}\" drop\n  iifname \"{b}\" oifname \"{a}\" drop"
            );
        }
        for (host, percent) in &self.loss {
            let _ = writeln!(rules, "  iifname \"{host}\" numgen random mod 100 < {percent} drop");
            let _ = writeln!(rules, "  oifname \"{host}\" numgen random mod 100 < {percent} drop");
        }
        format!(
            "table inet weather\ndelete table inet weather\ntable inet weather {{\n chain forward {{\n  \
             type filter hook forward priority filter; policy accept;\n{rules} }}\n}}\n"
        )
    }
}

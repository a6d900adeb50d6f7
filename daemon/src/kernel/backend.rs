//! Which firewall the kernel is told our table by: nftables where it is there, iptables else.

use super::{KernelError, firewall::Firewall, iptables::Iptables, process::find};
use crate::{config::FirewallChoice, log::warn, model::Ruleset};
use std::path::Path;

/// Both, and which of them is used. What the other one has of ours goes when something is written.
pub struct Backend {
    nft: Firewall,
    iptables: Iptables,
    by_iptables: bool,
}

impl Backend {
    /// The programs, and a folder that lives as long as the machine runs.
    pub fn new(choice: FirewallChoice, nft: String, iptables: String, folder: &Path) -> Self {
        let has_nft = find(&nft).is_some();
        let mut nft = Firewall::new(nft, folder);
        let iptables = Iptables::new(iptables, folder);
        let by_iptables = match choice {
            FirewallChoice::Nft => false,
            FirewallChoice::Iptables => true,
            FirewallChoice::Auto => {
                let nft = has_nft && nft.generation().is_ok_and(|generation| generation.is_some());
                !nft && iptables.is_there()
            }
        };
        Self { nft, iptables, by_iptables }
    }

    /// iptables, where it is used.
    pub fn by_iptables(&self) -> Option<&Iptables> {
        self.by_iptables.then_some(&self.iptables)
    }

    /// `nft` or `iptables`.
    pub fn name(&self) -> &'static str {
        if self.by_iptables { "iptables" } else { "nft" }
    }

    /// Our table, by the text that it was written from; some other text where it reads otherwise since.
    pub fn observe(&mut self) -> Result<Option<Ruleset>, KernelError> {
        match self.by_iptables {
            true => Ok(self.iptables.observe(self.nft.generation()?)),
            false => self.nft.observe(),
        }
    }

    /// Writes it.
    pub fn write(&mut self, ruleset: &Ruleset) -> Result<(), KernelError> {
        if !self.by_iptables {
            self.nft.write(ruleset)?;
            self.iptables.give_way();
            return Ok(());
        }
        self.iptables.write(ruleset)?;
        if let Err(error) = self.nft.delete() {
            warn!("our nftables table is left: {error}");
        }
        Ok(())
    }

    /// Deletes it.
    pub fn delete(&mut self) -> Result<(), KernelError> {
        match self.by_iptables {
            true => self.iptables.delete(),
            false => self.nft.delete(),
        }
    }
}

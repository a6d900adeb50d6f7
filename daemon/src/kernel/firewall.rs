//! Drivers for our firewall table: nftables where the kernel has it, iptables else. They render and load the table; what
//! is in it, and how it differs from the one that is there, is for `plan`.

pub mod iptables;
pub mod nft;
mod written;

use super::{KernelError, process::find};
use crate::{config::FirewallChoice, model::Ruleset, plan::TableUpdate};
use iptables::Iptables;
use nft::Nftables;
use std::path::Path;

/// Firewall backend: drivers for nftables and iptables, and the choice between them. Our objects in the other one are
/// deleted when the table is written.
pub struct Backend {
    nft: Nftables,
    iptables: Iptables,
    by_iptables: bool,
}

impl Backend {
    /// Firewall drivers for these programs, with the choice made. `folder` lives as long as the machine runs.
    pub fn new(choice: FirewallChoice, nft: String, iptables: String, folder: &Path) -> Self {
        let has_nft = find(&nft).is_some();
        let mut nft = Nftables::new(nft, folder);
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

    /// Driver for iptables, if it is the one in use.
    pub fn by_iptables(&self) -> Option<&Iptables> {
        self.by_iptables.then_some(&self.iptables)
    }

    /// Name of the firewall driver in use: `nft` or `iptables`.
    pub fn name(&self) -> &'static str {
        if self.by_iptables { "iptables" } else { "nft" }
    }

    /// Reads our firewall table as the kernel has it; `None` where there is none.
    pub fn observe(&mut self) -> Result<Option<Ruleset>, KernelError> {
        match self.by_iptables {
            true => Ok(self.iptables.observe(self.nft.generation()?)),
            false => self.nft.observe(),
        }
    }

    /// Writes our firewall table by the driver in use.
    pub fn write(&mut self, update: &TableUpdate) -> Result<(), KernelError> {
        if !self.by_iptables {
            self.nft.write(update)?;
            self.iptables.give_way();
            return Ok(());
        }
        self.iptables.write(update)?;
        if let Err(error) = self.nft.delete() {
            log::warn!("our nftables table is left: {error}");
        }
        Ok(())
    }

    /// Deletes our firewall table by the driver in use.
    pub fn delete(&mut self) -> Result<(), KernelError> {
        match self.by_iptables {
            true => self.iptables.delete(),
            false => self.nft.delete(),
        }
    }
}

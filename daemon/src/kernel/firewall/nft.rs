//! nftables: our table is written by `nft` in one transaction, in place where it is as we left it. It is read again only
//! when the kernel's generation number shows that some table changed. `nft` needs no JSON support.

pub mod script;

use super::written::Written;
use crate::{
    kernel::{
        KernelError,
        netlink::{
            attr::{Message, attrs_after},
            socket::{NetlinkError, Socket},
        },
        process,
    },
    model::{FirewallTable, Ruleset},
    ownership::NFT_TABLE,
    plan::{InPlace, TableUpdate},
};
use nix::libc::{EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, NLM_F_ACK};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Attempts to read the table while others change tables.
const ATTEMPTS: usize = 3;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
const NFPROTO_INET: u8 = 1;
const GEN_HEADER: usize = 4;

/// Driver that keeps our firewall table in nftables.
pub struct Nftables {
    nft: String,
    record: PathBuf,
    written: Option<Written>,
    seen: Option<Seen>,
    socket: Option<Socket>,
}

/// Our nftables table as last read, and the kernel's generation then.
struct Seen {
    generation: u32,
    ruleset: Option<Ruleset>,
}

impl Nftables {
    /// nftables driver that runs the program `nft`, a name or a path. It remembers in `folder` what it wrote.
    pub fn new(nft: String, folder: &Path) -> Self {
        let record = folder.join("ruleset");
        let written = Written::load(&record, &script::replacement);
        Self { nft, written, record, seen: None, socket: None }
    }

    /// Reads our nftables table as the kernel has it; `None` where there is none.
    pub fn observe(&mut self) -> Result<Option<Ruleset>, KernelError> {
        for _ in 0..ATTEMPTS {
            let Some(generation) = self.generation()? else { return Ok(None) };
            if let Some(seen) = self.seen.as_ref().filter(|seen| seen.generation == generation) {
                return Ok(seen.ruleset.clone());
            }
            let ruleset = self.read()?;
            self.seen = Some(Seen { generation, ruleset });
        }
        Ok(self.seen.as_ref().and_then(|seen| seen.ruleset.clone()))
    }

    fn read(&mut self) -> Result<Option<Ruleset>, KernelError> {
        if !self.exists()? {
            return Ok(None);
        }
        let listing = match self.list() {
            Ok(listing) => listing,
            // Gone since.
            Err(_) if !self.exists()? => return Ok(None),
            // A table that can't be read must be written again: that reports what is wrong, and nothing else waits.
            Err(_) => return Ok(Some(Ruleset::Unknown)),
        };
        Ok(Some(Written::known(self.written.as_ref(), &listing)))
    }

    /// Writes our nftables table in one transaction: no packet meets half of it, or none. If the table is still the one
    /// that the change is from, only the change is written.
    pub fn write(&mut self, update: &TableUpdate) -> Result<(), KernelError> {
        if let Some((change, generation)) = self.applicable(update) {
            match self.transact(&script::change(&change.change), &update.table) {
                // No other program changed a table meanwhile: the change met the table that it is from.
                Ok(after) if after == Some(generation.wrapping_add(1)) => return Ok(()),
                Ok(_) => log::debug!("the firewall changed meanwhile: our table is written whole"),
                Err(error) => log::warn!("our firewall table can't be changed and is written whole: {error}"),
            }
        }
        self.transact(&script::replacement(&update.table), &update.table)?;
        Ok(())
    }

    /// Change of an update that can be made in place, if the kernel has the table that it is from, and the kernel's
    /// generation now.
    fn applicable<'a>(&mut self, update: &'a TableUpdate) -> Option<(&'a InPlace, u32)> {
        let change = update.change.as_ref()?;
        let Some(Ruleset::Known(there)) = self.observe().ok()? else { return None };
        (there == change.from).then_some((change, self.seen.as_ref()?.generation))
    }

    /// Runs an `nft` script that makes our table this one, and records it as written. Returns the kernel's generation
    /// afterwards, if no other program changed anything while the table was read back.
    fn transact(&mut self, script: &str, table: &Arc<FirewallTable>) -> Result<Option<u32>, KernelError> {
        self.seen = None;
        self.nft(&["-f", "-"], script)?;
        let before = self.generation()?;
        let written = Written::save(&self.record, table, &script::replacement(table), &self.list()?)?;
        self.written = Some(written);
        let generation = self.generation()?.filter(|after| before == Some(*after));
        let ruleset = Some(Ruleset::Known(table.clone()));
        self.seen = generation.map(|generation| Seen { generation, ruleset });
        Ok(generation)
    }

    /// Deletes our nftables table.
    pub fn delete(&mut self) -> Result<(), KernelError> {
        self.seen = None;
        if self.exists()?
            && let Err(error) = self.nft(&["-f", "-"], &format!("delete table inet {NFT_TABLE}\n"))
            && self.exists()?
        {
            return Err(error);
        }
        self.written = None;
        Written::forget(&self.record);
        Ok(())
    }

    fn list(&self) -> Result<String, KernelError> {
        // Stateless: counters are no change.
        self.nft(&["-s", "list", "table", "inet", NFT_TABLE], "")
    }

    fn nft(&self, arguments: &[&str], input: &str) -> Result<String, KernelError> {
        process::ask(&self.nft, arguments, input, "nftables (Debian) or nftables-nojson (OpenWrt)")
    }

    /// Generation number of the kernel's nftables, which grows with every change of any table; `None` when the kernel
    /// has no nftables.
    pub fn generation(&mut self) -> Result<Option<u32>, KernelError> {
        let body = self.ask(&request(NFT_MSG_GETGEN, 0))?.unwrap_or_default();
        let id = attrs_after(&body, GEN_HEADER).value(NFTA_GEN_ID);
        Ok(id.and_then(|id| Some(u32::from_be_bytes(id.try_into().ok()?))))
    }

    fn exists(&mut self) -> Result<bool, KernelError> {
        let mut message = request(NFT_MSG_GETTABLE, NFPROTO_INET);
        message.text(NFTA_TABLE_NAME, NFT_TABLE);
        Ok(self.ask(&message)?.is_some())
    }

    /// Body of the kernel's answer to an nftables request; `None` for no such table, or no nftables.
    fn ask(&mut self, message: &Message) -> Result<Option<Vec<u8>>, KernelError> {
        match self.try_ask(message) {
            // No such table; no nftables in this kernel.
            Err(error) if error.is(&[ENOENT, EINVAL, EOPNOTSUPP, EPROTONOSUPPORT]) => Ok(None),
            other => other.map_err(|e| e.at("look at the firewall")),
        }
    }

    fn try_ask(&mut self, message: &Message) -> Result<Option<Vec<u8>>, NetlinkError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
        };
        let socket = self.socket.insert(socket);
        Ok(socket.read(message, |received| Some(received.body.to_vec()))?.pop())
    }
}

/// Netlink request to nftables: `nlmsghdr` and `struct nfgenmsg`.
fn request(kind: u16, family: u8) -> Message {
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_ACK, &[family, 0, 0, 0])
}

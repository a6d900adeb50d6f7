//! Our nftables table: written by `nft` in one transaction, in place where it is known to be as we left it, looked at
//! only when the kernel's generation number says that something changed. Needs no JSON support in `nft`.

use super::{
    KernelError,
    netlink::{
        attr::{Message, attrs_after},
        socket::{NetlinkError, Socket},
    },
    process, record,
};
use crate::{
    log::{debug, warn},
    model::Ruleset,
    ownership::NFT_TABLE,
    plan::rewrite,
};
use gatewrt_protocol::base::HEX;
use nix::libc::{EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, NLM_F_ACK};
use std::path::{Path, PathBuf};

/// How often it is looked again when the tables change meanwhile.
const LOOKS: usize = 3;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
const NFPROTO_INET: u8 = 1;
const GEN_HEADER: usize = 4;

/// The kernel's nftables, as far as our table goes.
pub struct Firewall {
    nft: String,
    record: PathBuf,
    written: Option<Written>,
    seen: Option<Seen>,
    socket: Option<Socket>,
}

/// What was written, and a digest of how the kernel read back right after: it words things in its own way.
struct Written {
    ruleset: Ruleset,
    listing: String,
}

struct Seen {
    generation: u32,
    ruleset: Option<Ruleset>,
}

impl Firewall {
    /// `nft` is the program; what was written is remembered in `folder`.
    pub fn new(nft: String, folder: &Path) -> Self {
        let record = folder.join("ruleset");
        let written = record::load(&record)
            .map(|(text, listing): (String, String)| Written { ruleset: Ruleset(text.into()), listing });
        Self { nft, written, record, seen: None, socket: None }
    }

    /// Our table: the text that it was written from, if it still reads the same; its listing, or nothing
    /// readable, if it does not; `None` if there is none.
    pub fn observe(&mut self) -> Result<Option<Ruleset>, KernelError> {
        for _ in 0..LOOKS {
            let Some(generation) = self.generation()? else { return Ok(None) };
            if let Some(seen) = self.seen.as_ref().filter(|seen| seen.generation == generation) {
                return Ok(seen.ruleset.clone());
            }
            let ruleset = self.look()?;
            self.seen = Some(Seen { generation, ruleset });
        }
        Ok(self.seen.as_ref().and_then(|seen| seen.ruleset.clone()))
    }

    fn look(&mut self) -> Result<Option<Ruleset>, KernelError> {
        if !self.exists()? {
            return Ok(None);
        }
        let listing = match self.list() {
            Ok(listing) => listing,
            // Gone since.
            Err(_) if !self.exists()? => return Ok(None),
            // A table that can't be read must be written anew; that will say what is wrong, and nothing else waits
            // for it.
            Err(_) => return Ok(Some(Ruleset("".into()))),
        };
        let ours = self.written.as_ref().filter(|written| written.listing == digest(&listing));
        Ok(Some(ours.map_or_else(|| Ruleset(listing.into()), |written| written.ruleset.clone())))
    }

    /// Writes the table, in one transaction: no packet sees it half or missing. Where it is there as we wrote it, only
    /// what differs is changed.
    pub fn write(&mut self, ruleset: &Ruleset) -> Result<(), KernelError> {
        if let Some((change, generation)) = self.change_to(ruleset) {
            match self.transact(&change, ruleset) {
                // Nobody else changed a table meanwhile: ours is as we know it.
                Ok(after) if after == Some(generation.wrapping_add(1)) => return Ok(()),
                Ok(_) => debug!("the firewall changed meanwhile: our table is written whole"),
                Err(error) => warn!("our firewall table can't be changed and is written whole: {error}"),
            }
        }
        let text = &ruleset.0;
        self.transact(&format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n{text}\n"), ruleset)?;
        Ok(())
    }

    /// The change, and the kernel's generation that it is for.
    fn change_to(&mut self, ruleset: &Ruleset) -> Option<(String, u32)> {
        let there = self.observe().ok()??;
        let written = self.written.as_ref().filter(|written| written.ruleset == there)?;
        let change = rewrite::change(&written.ruleset.0, &ruleset.0).filter(|change| !change.is_empty())?;
        Some((change, self.seen.as_ref()?.generation))
    }

    /// Carries out a script, after which the table is this; gives the kernel's generation then, if nobody changed
    /// anything while it was read back.
    fn transact(&mut self, script: &str, ruleset: &Ruleset) -> Result<Option<u32>, KernelError> {
        self.seen = None;
        self.nft(&["-f", "-"], script)?;
        let before = self.generation()?;
        let listing = digest(&self.list()?);
        record::save(&self.record, &(&*ruleset.0, &*listing))?;
        self.written = Some(Written { ruleset: ruleset.clone(), listing });
        let generation = self.generation()?.filter(|after| before == Some(*after));
        self.seen = generation.map(|generation| Seen { generation, ruleset: Some(ruleset.clone()) });
        Ok(generation)
    }

    /// Deletes the table.
    pub fn delete(&mut self) -> Result<(), KernelError> {
        self.seen = None;
        if self.exists()?
            && let Err(error) = self.nft(&["-f", "-"], &format!("delete table inet {NFT_TABLE}\n"))
            && self.exists()?
        {
            return Err(error);
        }
        self.written = None;
        record::forget(&self.record);
        Ok(())
    }

    fn list(&self) -> Result<String, KernelError> {
        // Stateless: counters are no change.
        self.nft(&["-s", "list", "table", "inet", NFT_TABLE], "")
    }

    fn nft(&self, arguments: &[&str], input: &str) -> Result<String, KernelError> {
        process::ask(&self.nft, arguments, input, "nftables (Debian) or nftables-nojson (OpenWrt)")
    }

    /// Grows with every change of any table; `None` when the kernel has no nftables.
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

    /// The body of the answer, if there is one.
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

/// A listing is long.
pub fn digest(listing: &str) -> String {
    HEX.encode(ring::digest::digest(&ring::digest::SHA256, listing.as_bytes()).as_ref())
}

/// `nlmsghdr` and `struct nfgenmsg`.
fn request(kind: u16, family: u8) -> Message {
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_ACK, &[family, 0, 0, 0])
}

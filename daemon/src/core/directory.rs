//! Directory: the verified records of one network. It accepts no record that is not signed, is for another network or
//! node, or is older than the known one.
//!
//! Messages in any order, duplicated or lost, followed by a resync, end in the same directory.

mod before;

use before::{Before, CONFIRMED};
use gatewrt_protocol::{
    Assignment, Member, MemberUpdate, NetworkId, NodeId, Policy, PublicKey, RecordError, Roster, Topic,
    WgPublicKey, jws, record::Record,
};
use litemap::LiteMap;
use sorted_vec::SortedSet;

/// Limit on the nodes of a network: more are refused rather than held in memory.
pub const MOST_MEMBERS: usize = 4096;

/// Reason why a message with a record was refused. Counted by [`Refusal::reason`] and reported.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Signature or content is invalid.
    #[error(transparent)]
    Record(RecordError),
    /// Validly signed, but for another network or node than its topic.
    #[error("signed for another network or node")]
    Elsewhere,
    /// Older than the known record: replayed or rolled back.
    #[error("revision {offered} is older than {known}: the coordinator was set back, or a broker replays it")]
    Old {
        /// Known revision.
        known: u64,
        /// Revision of the message.
        offered: u64,
    },
    /// Same revision as the known record, but other content.
    #[error("revision {0} is known with other content")]
    Conflict(u64),
    /// Topic that this node does not read.
    #[error("not a topic of this node")]
    Topic,
    /// Member record of a node whose tombstone is known: its id is never used again, whatever the revision.
    #[error("that node was removed for good")]
    Removed,
    /// [`MOST_MEMBERS`] reached.
    #[error("more than {MOST_MEMBERS} nodes")]
    Full,
}

impl Refusal {
    /// Short stable name for the reason of a refusal, by which refusals are counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Record(RecordError::TooLong(..)) => "too-long",
            Self::Record(RecordError::Malformed | RecordError::Content(_)) => "malformed",
            Self::Record(RecordError::ForeignKey | RecordError::BadSignature) => "bad-signature",
            Self::Record(RecordError::WrongKind) => "wrong-kind",
            Self::Record(RecordError::TooNew(_)) => "too-new",
            Self::Elsewhere => "for-another",
            Self::Old { .. } => "old-revision",
            Self::Conflict(_) => "conflict",
            Self::Removed => "removed",
            Self::Topic => "unknown-topic",
            Self::Full => "full",
        }
    }

    /// True if the coordinator itself signed a newer record than the refused one.
    fn is_outdated(&self) -> bool {
        matches!(self, Self::Old { .. } | Self::Conflict(_) | Self::Removed)
    }
}

/// Verified record with the signed text it came in, which goes to flash as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held<T> {
    rev: u64,
    record: T,
    token: String,
}

/// Change of a directory of records by one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// None: a duplicate.
    Nothing,
    /// A record is new or newer.
    Something,
    /// A known node or external client was removed: no power cut may bring it back.
    Removal,
}

/// Directory of the verified records of one network.
#[derive(Debug, Clone)]
pub struct Directory {
    net: NetworkId,
    node: NodeId,
    key: PublicKey,
    policy: Option<Held<Policy>>,
    assignment: Option<Held<Assignment>>,
    roster: Option<Held<Roster>>,
    members: LiteMap<NodeId, Held<MemberUpdate>>,
    before: Before,
    /// A policy was restored from this router's own disk, and with it all records.
    restored: bool,
    /// Members whose records came since the control link was opened last.
    heard: SortedSet<NodeId>,
    /// Topics of records that are newer than what the broker offered, and of which the coordinator was not told yet.
    untold: SortedSet<Topic>,
}

impl Directory {
    /// Empty directory of the records of network `net` for `node`, with `key` to verify them.
    pub fn new(net: NetworkId, node: NodeId, key: PublicKey) -> Self {
        Self {
            net,
            node,
            key,
            policy: None,
            assignment: None,
            roster: None,
            members: LiteMap::new(),
            before: Before::default(),
            restored: false,
            heard: SortedSet::new(),
            untold: SortedSet::new(),
        }
    }

    /// Takes the record in a message from the broker into the directory, or refuses it.
    pub fn accept(&mut self, topic: &str, payload: &[u8]) -> Result<Change, Refusal> {
        let topic = topic.parse().map_err(|_| Refusal::Topic)?;
        if payload.is_empty() && self.is_read(&topic) {
            // The broker holds no record there any more. Only a signed record removes a known one.
            return Ok(Change::Nothing);
        }
        if self.is_known(&topic, payload) {
            self.note_heard(&topic);
            return Ok(Change::Nothing);
        }
        let taken = self.take(&topic, payload, Source::Broker);
        if taken.as_ref().is_err_and(Refusal::is_outdated) {
            self.untold.push(topic);
        }
        taken
    }

    /// Signed text of a record that the coordinator does not seem to know any more; each is returned once. It was
    /// restored from a backup if it offers older records, or does not send this node's own member record. Member records
    /// come first: the rest is about nodes that the coordinator then knows.
    pub fn pop_untold(&mut self) -> Option<String> {
        let topic = self.untold.first().copied()?;
        self.untold.remove_item(&topic);
        self.token(&topic).map(str::to_owned)
    }

    /// Notes that the link was open long enough for this node's own records to come: if they did not, the coordinator is
    /// to be told of them.
    pub fn handle_settled(&mut self) {
        if self.heard.binary_search(&self.node).is_err() {
            self.untold.push(Topic::Member(self.net, self.node));
            self.untold.push(Topic::Assignment(self.node));
        }
    }

    /// Policy of this network in a signed text; `None` if the coordinator did not sign it, or it is no newer than the known
    /// one.
    pub fn newer_policy(&self, token: &[u8]) -> Option<Policy> {
        let policy: Policy = self.read(token, Source::Broker).ok()?;
        let known = self.policy.as_ref().map_or(0, |held| held.rev);
        (policy.net == self.net && policy.rev > known).then_some(policy)
    }

    /// Signed text of the newest policy; empty without one.
    pub fn policy_token(&self) -> &str {
        self.token(&Topic::Policy(self.net)).unwrap_or_default()
    }

    /// Restores a record that was stored on disk into the directory. This router trusts its own disk, so that a start
    /// needs no signature checks.
    pub fn restore(&mut self, topic: &str, token: &str) -> Result<Change, Refusal> {
        if let Some(topic) = topic.strip_prefix(CONFIRMED) {
            return self.restore_confirmed(topic, token);
        }
        let topic = topic.parse().map_err(|_| Refusal::Topic)?;
        self.restored |= matches!(topic, Topic::Policy(_));
        self.take(&topic, token.as_bytes(), Source::Disk)
    }

    /// True if the records in the directory suffice to decide on the desired state. If none could be restored, the
    /// roster has to agree with them first: until then, records that are still to come would be missing.
    pub fn is_whole(&self) -> bool {
        let own = self.policy.is_some() && self.assignment.is_some();
        own && (self.restored || self.agrees() == Some(true))
    }

    /// All records of the directory as they are to be stored on disk: topic and signed text.
    pub fn stored(&self) -> LiteMap<String, String> {
        let mut all = LiteMap::new();
        let mut put = |topic: Topic, token: &str| all.insert(topic.to_string(), token.to_owned());
        if let Some(held) = &self.policy {
            put(Topic::Policy(self.net), &held.token);
        }
        if let Some(held) = &self.assignment {
            put(Topic::Assignment(self.node), &held.token);
        }
        if let Some(held) = &self.roster {
            put(Topic::Roster(self.net), &held.token);
        }
        for (node, held) in &self.members {
            put(Topic::Member(self.net, *node), &held.token);
        }
        all
    }

    /// Roster of the network; `None` before it came.
    pub fn roster(&self) -> Option<&Roster> {
        self.roster.as_ref().map(|held| &held.record)
    }

    /// Member records of the other nodes of the network.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter_map(live).filter(|member| member.node != self.node)
    }

    /// Member record of this node itself.
    pub fn own(&self) -> Option<&Member> {
        self.members.get(&self.node).and_then(live)
    }

    /// True if the coordinator removed this node from the network.
    pub fn is_removed(&self) -> bool {
        self.members.get(&self.node).is_some_and(|held| matches!(held.record, MemberUpdate::Tombstone(_)))
    }

    /// Starts to note which member records come, when the control link is opened: the others may have expired.
    pub fn handle_connecting(&mut self) {
        self.heard.clear();
        self.untold.clear();
    }

    /// True if the roster agrees with the member records; `None` without a roster.
    pub fn agrees(&self) -> Option<bool> {
        self.roster().map(|roster| roster.describes(&self.revisions(|_| true)))
    }

    /// Forgets member records of nodes that the network no longer has and whose tombstones have expired: those that did
    /// not come since the link was opened, if the roster describes just the rest. Returns whether there were any.
    pub fn purge(&mut self) -> bool {
        let heard = self.revisions(|node| self.heard.binary_search(node).is_ok());
        let due =
            self.agrees() == Some(false) && self.roster().is_some_and(|roster| roster.describes(&heard));
        if due {
            self.members.retain(|node, held| heard.contains_key(node) || live(held).is_none());
        }
        due
    }

    fn revisions(&self, counts: impl Fn(&NodeId) -> bool) -> LiteMap<NodeId, u64> {
        let live = self.members.iter().filter(|(node, held)| live(held).is_some() && counts(node));
        live.map(|(node, held)| (*node, held.rev)).collect()
    }

    fn token(&self, topic: &Topic) -> Option<&str> {
        let token = match topic {
            Topic::Policy(_) => self.policy.as_ref().map(|held| &held.token),
            Topic::Assignment(_) => self.assignment.as_ref().map(|held| &held.token),
            Topic::Roster(_) => self.roster.as_ref().map(|held| &held.token),
            Topic::Member(net, node) if *net == self.net => self.members.get(node).map(|held| &held.token),
            _ => None,
        };
        token.map(String::as_str)
    }

    fn is_known(&self, topic: &Topic, payload: &[u8]) -> bool {
        self.token(topic).is_some_and(|token| token.as_bytes() == payload) && self.is_read(topic)
    }

    fn is_read(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Member(net, _) | Topic::Roster(net) | Topic::Policy(net) => *net == self.net,
            Topic::Assignment(node) => *node == self.node,
            _ => false,
        }
    }

    fn note_heard(&mut self, topic: &Topic) {
        if let Topic::Member(_, node) = topic {
            self.heard.push(*node);
        }
    }

    fn take(&mut self, topic: &Topic, payload: &[u8], source: Source) -> Result<Change, Refusal> {
        if !self.is_read(topic) {
            return Err(Refusal::Topic);
        }
        let change = match topic {
            Topic::Policy(_) => {
                let record: Policy = self.read(payload, source)?;
                let ours = record.net == self.net;
                replace(&mut self.policy, &mut self.before.policy, record.rev, record, ours, payload)
            }
            Topic::Assignment(_) => {
                let record: Assignment = self.read(payload, source)?;
                let ours = (record.net, record.node) == (self.net, self.node);
                let goes = self.assignment().is_some_and(|before| shuts_out(before, &record));
                let Self { assignment, before, .. } = self;
                or_removal(
                    replace(assignment, &mut before.assignment, record.rev, record, ours, payload),
                    goes,
                )
            }
            Topic::Roster(_) => {
                let record: Roster = self.read(payload, source)?;
                let ours = record.net == self.net;
                replace(&mut self.roster, &mut None, record.rev, record, ours, payload)
            }
            Topic::Member(_, node) => self.take_member(*node, payload, source),
            _ => Err(Refusal::Topic),
        }?;
        if source == Source::Broker {
            self.note_heard(topic);
        }
        Ok(change)
    }

    fn take_member(&mut self, node: NodeId, payload: &[u8], source: Source) -> Result<Change, Refusal> {
        let record: MemberUpdate = self.read(payload, source)?;
        let (net, about, rev) = record.about();
        let ours = (net, about) == (self.net, node);
        if self.members.len() >= MOST_MEMBERS && !self.members.contains_key(&node) {
            return Err(Refusal::Full);
        }
        let held = self.members.get(&node);
        if matches!(record, MemberUpdate::Member(_)) && held.is_some_and(|held| live(held).is_none()) {
            return Err(Refusal::Removed);
        }
        let was_there = held.map_or(node == self.node, |held| live(held).is_some());
        let goes = was_there && matches!(record, MemberUpdate::Tombstone(_));
        let newer = newer(held.map(|held| (held.rev, held.token.as_str())), rev, ours, payload)?;
        let Some(token) = newer else { return Ok(Change::Nothing) };
        self.members.insert(node, Held { rev, record, token });
        Ok(if goes { Change::Removal } else { Change::Something })
    }

    fn read<T: Record>(&self, payload: &[u8], source: Source) -> Result<T, Refusal> {
        match source {
            Source::Broker => jws::open(payload, &self.key),
            Source::Disk => jws::open_own(payload),
        }
        .map_err(Refusal::Record)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Broker,
    Disk,
}

fn or_removal(change: Result<Change, Refusal>, goes: bool) -> Result<Change, Refusal> {
    match change {
        Ok(Change::Something) if goes => Ok(Change::Removal),
        change => change,
    }
}

/// True if an external client of the assignment `before` was revoked, so that `after` lacks it.
fn shuts_out(before: &Assignment, after: &Assignment) -> bool {
    let clients = |assignment: &Assignment| -> SortedSet<WgPublicKey> {
        let clients = assignment.ingress.as_ref().map(|ingress| ingress.clients.as_slice());
        clients.unwrap_or_default().iter().map(|client| client.key).collect()
    };
    let after = clients(after);
    clients(before).iter().any(|key| after.binary_search(key).is_err())
}

fn live(held: &Held<MemberUpdate>) -> Option<&Member> {
    match &held.record {
        MemberUpdate::Member(member) => Some(member),
        MemberUpdate::Tombstone(_) => None,
    }
}

fn record<T>(held: &Option<Held<T>>) -> Option<&T> {
    held.as_ref().map(|held| &held.record)
}

/// Puts a newer record into its slot of the directory. The old record moves to `before`, unless that is taken.
fn replace<T>(
    slot: &mut Option<Held<T>>,
    before: &mut Option<Held<T>>,
    rev: u64,
    record: T,
    ours: bool,
    payload: &[u8],
) -> Result<Change, Refusal> {
    let held = slot.as_ref().map(|held| (held.rev, held.token.as_str()));
    let Some(token) = newer(held, rev, ours, payload)? else { return Ok(Change::Nothing) };
    let old = slot.replace(Held { rev, record, token });
    *before = before.take().or(old);
    Ok(Change::Something)
}

/// Signed text of a record that is newer than the held one (revision and text); `None` when it is the same.
fn newer(held: Option<(u64, &str)>, rev: u64, ours: bool, payload: &[u8]) -> Result<Option<String>, Refusal> {
    if !ours {
        return Err(Refusal::Elsewhere);
    }
    let token = std::str::from_utf8(payload).map_err(|_| Refusal::Record(RecordError::Malformed))?;
    match held {
        Some((known, _)) if rev < known => Err(Refusal::Old { known, offered: rev }),
        Some((known, text)) if rev == known && text == token => Ok(None),
        Some((known, _)) if rev == known => Err(Refusal::Conflict(rev)),
        _ => Ok(Some(token.to_owned())),
    }
}

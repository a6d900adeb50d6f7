//! The desk: the one task that owns registry, ledger and what is live. Everyone else sends it questions and
//! orders. An order is planned on the registry (pure), stored with the records that follow from it in one
//! transaction, and only then published and answered.

mod uplink;
mod watch;

pub use watch::WatchEvent;

use crate::{
    audit::Entry,
    broker::Event,
    live::Live,
    records::{self, Change, Ledger},
    registry::{Changes, Moment, Registry, RegistryError, Row},
    store::{Loaded, Signed, Store, StoreError},
};
use gatewrt_protocol::{NetworkId, NodeId, RecordError, Signer, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};
use tokio::sync::{broadcast, mpsc, oneshot};

/// How often the desk looks for tombstones whose time is over.
const TICK: Duration = Duration::from_secs(3600);
/// How soon a node's next news is taken in: what one node says all others are told, and none may keep them busy.
const NEWS: Duration = Duration::from_secs(1);
/// How often the desk looks for clients whose time is over, where any has a time.
const EXPIRY: Duration = Duration::from_secs(1);
/// Orders waiting at the desk.
const JOBS: usize = 256;
/// Lines a slow watcher may fall behind.
const WATCH: usize = 1024;

/// What the desk has for whoever carries messages to nodes, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Post {
    /// A retained message; an empty payload clears the topic.
    Record {
        /// Where.
        topic: Topic,
        /// The signed record.
        signed: String,
    },
    /// The node was removed: once it could read its tombstone, it has to be shut out and its session ended.
    Remove(NodeId),
}

/// What the desk knows, for reading.
pub struct State {
    /// What the admin wants.
    pub registry: Registry,
    /// What stands on every topic.
    pub ledger: Ledger,
    /// What nodes say and do now.
    pub live: Live,
    signer: Arc<Signer>,
}

impl State {
    /// The signed record that stands on a topic.
    pub fn signed(&self, topic: &Topic) -> Option<String> {
        self.ledger.content(topic).map(|content| content.sign(&self.signer).expect("it was signed before"))
    }
}

/// Why the desk did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The order makes no sense or is not allowed.
    #[error(transparent)]
    Refused(#[from] RegistryError),
    /// It could not be stored, so nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record would be longer than routers accept, so nothing was changed.
    #[error("a record would be too long: {0}")]
    Record(RecordError),
    /// It was made for what is there no more: someone else was faster.
    #[error("{0} was changed meanwhile")]
    Changed(String),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping: try again in a moment")]
    Stopping,
}

/// Nodes and the network each is in: what the broker lets connect. Shared with the broker's threads.
#[derive(Debug, Clone, Default)]
pub struct Nodes(Arc<RwLock<BTreeMap<String, BTreeSet<String>>>>);

impl crate::broker::Directory for Nodes {
    fn networks_of(&self, node: &str) -> Option<BTreeSet<String>> {
        self.0.read().expect("no holder of this lock panics").get(node).cloned()
    }
}

impl Nodes {
    fn admit(&self, registry: &Registry, ids: impl Iterator<Item = NodeId>) {
        let mut nodes = self.0.write().expect("no holder of this lock panics");
        for node in ids.filter_map(|id| registry.live_node(id)) {
            nodes.insert(node.id.to_string(), [node.net.to_string()].into());
        }
    }

    /// Shuts a removed node out: from now on it reads nothing and can't come back.
    pub fn shut_out(&self, node: NodeId) {
        self.0.write().expect("no holder of this lock panics").remove(&node.to_string());
    }
}

type Done = Box<dyn FnOnce(Result<&State, DeskError>) + Send>;
type Order = Box<dyn FnOnce(&State, &Moment) -> Option<(Changes, Done)> + Send>;

/// Whether an order is carried out or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carried out: stored, published, answered.
    Real,
    /// Checked as far as it can fail, and answered as if; nothing is stored or published.
    Rehearsal,
}

enum Job {
    View(Box<dyn FnOnce(&State) + Send>),
    Change(Mode, Order),
    Audit { net: Option<NetworkId>, before: Option<i64>, limit: u32, reply: oneshot::Sender<AuditPage> },
}

type AuditPage = Result<Vec<(i64, Entry)>, StoreError>;

/// Where to send questions and orders; cheap to clone. The desk closes when the last one is gone.
#[derive(Clone)]
pub struct DeskHandle {
    jobs: mpsc::Sender<Job>,
    watch: broadcast::Sender<Arc<WatchEvent>>,
}

impl DeskHandle {
    /// Answers a question about the state.
    pub async fn view<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, DeskError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::View(Box::new(move |state| drop(reply.send(ask(state)))));
        self.jobs.send(job).await.map_err(|_| DeskError::Stopping)?;
        answer.await.map_err(|_| DeskError::Stopping)
    }

    /// Has `plan` carried out, or only tried; `then` makes the answer from what is known afterwards.
    pub async fn change<T: Send + 'static, U: Send + 'static>(
        &self,
        mode: Mode,
        plan: impl FnOnce(&State, &Moment) -> Result<(Changes, T), DeskError> + Send + 'static,
        then: impl FnOnce(&State, T) -> U + Send + 'static,
    ) -> Result<U, DeskError> {
        let (reply, answer) = oneshot::channel();
        let order: Order = Box::new(move |state, moment| match plan(state, moment) {
            Err(refused) => {
                drop(reply.send(Err(refused)));
                None
            }
            Ok((changes, outcome)) => {
                let done: Done =
                    Box::new(move |state| drop(reply.send(state.map(|state| then(state, outcome)))));
                Some((changes, done))
            }
        });
        self.jobs.send(Job::Change(mode, order)).await.map_err(|_| DeskError::Stopping)?;
        answer.await.map_err(|_| DeskError::Stopping)?
    }

    /// Entries of the audit log, newest first; see [`Store::audit`].
    pub async fn audit(
        &self,
        net: Option<NetworkId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Entry)>, DeskError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Audit { net, before, limit, reply };
        self.jobs.send(job).await.map_err(|_| DeskError::Stopping)?;
        Ok(answer.await.map_err(|_| DeskError::Stopping)??)
    }

    /// Everything that changes from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<WatchEvent>> {
        self.watch.subscribe()
    }
}

/// See the module.
pub struct Desk {
    state: State,
    store: Store,
    nodes: Nodes,
    post: mpsc::Sender<Post>,
    jobs: mpsc::Receiver<Job>,
    watch: broadcast::Sender<Arc<WatchEvent>>,
    /// Nodes whose news was taken in a moment ago; `true` where more has come since.
    recent: BTreeMap<NodeId, bool>,
    /// Up to when clients' times were looked at; nothing where none has one to come.
    expires: Option<u64>,
}

impl Desk {
    /// A desk with what was stored, the way to it, and the nodes it knows. What it publishes goes to `post`.
    pub fn new(
        loaded: Loaded,
        store: Store,
        signer: Arc<Signer>,
        post: mpsc::Sender<Post>,
    ) -> (Self, DeskHandle, Nodes) {
        let nodes = Nodes::default();
        nodes.admit(&loaded.registry, loaded.registry.nodes().map(|node| node.id));
        let (sender, jobs) = mpsc::channel(JOBS);
        let (watch, _) = broadcast::channel(WATCH);
        let state = State { registry: loaded.registry, ledger: loaded.ledger, live: Live::default(), signer };
        let handle = DeskHandle { jobs: sender, watch: watch.clone() };
        let desk = Self {
            state,
            store,
            nodes: nodes.clone(),
            post,
            jobs,
            watch,
            recent: BTreeMap::new(),
            expires: None,
        };
        (desk, handle, nodes)
    }

    /// Brings stored records up to what the registry and this program say, before anyone is served: settings
    /// of this start, tombstones whose time is over, fields that an earlier version did not have.
    pub async fn settle(&mut self, control: BTreeSet<SocketAddr>) -> Result<(), DeskError> {
        let rows = self.state.registry.set_control(control);
        self.commit(rows).await?;
        self.expires = Some(now());
        self.refresh().await
    }

    /// Where the coordinator was reached until now.
    pub fn control(&self) -> &[SocketAddr] {
        self.state.registry.control()
    }

    /// Every record, signed: what the broker starts with.
    pub fn retained(&self) -> Vec<(Topic, String)> {
        let ledger = self.state.ledger.iter();
        ledger.filter_map(|(topic, _)| Some((*topic, self.state.signed(topic)?))).collect()
    }

    /// Works until every handle is gone, then closes the database.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut tick = tokio::time::interval(TICK);
        let mut news = tokio::time::interval(NEWS);
        let mut expiry = tokio::time::interval(EXPIRY);
        let mut listening = true;
        loop {
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.handle_job(job).await,
                    None => break,
                },
                event = events.recv(), if listening => match event {
                    Some(event) => self.handle_event(event).await,
                    None => listening = false,
                },
                _ = news.tick(), if !self.recent.is_empty() => self.learn_waiting().await,
                _ = expiry.tick(), if self.expires.is_some() => self.expire().await,
                _ = tick.tick() => {
                    if let Err(error) = self.refresh().await {
                        tracing::error!("can't clear old tombstones: {error}");
                    }
                }
            }
        }
        self.store.close().await;
    }

    async fn handle_job(&mut self, job: Job) {
        match job {
            Job::View(ask) => ask(&self.state),
            Job::Change(mode, order) => {
                let moment = Moment { now: now(), entropy: crate::pki::random() };
                let Some((changes, done)) = order(&self.state, &moment) else { return };
                match mode {
                    Mode::Real => self.carry_out(changes, done).await,
                    Mode::Rehearsal => self.rehearse(changes, done),
                }
            }
            Job::Audit { net, before, limit, reply } => {
                // Fails when who asked has gone.
                let _ = reply.send(self.store.audit(net, before, limit).await);
            }
        }
    }

    async fn carry_out(&mut self, changes: Changes, done: Done) {
        let outcome = self.commit(changes).await;
        if let Err(error) = &outcome {
            tracing::error!("a change was not made: {error}");
        }
        done(outcome.map(|()| &self.state));
    }

    /// Does all of a change that can be refused, answers, and undoes it.
    fn rehearse(&mut self, changes: Changes, done: Done) {
        let undo = self.state.registry.apply(changes.clone());
        let topics = records::touched(&self.state.registry, &changes, &undo);
        let records = self.state.ledger.plan(&self.state.registry, now(), &topics);
        let signed = records.iter().try_for_each(|change| self.sign(change).map(drop));
        done(signed.map(|()| &self.state));
        self.state.registry.apply(undo);
    }

    /// Makes rows and the records that follow from them true: in memory, on disk, then at the nodes.
    async fn commit(&mut self, rows: Changes) -> Result<(), DeskError> {
        if rows.is_empty() {
            return Ok(());
        }
        let at = now();
        let undo = self.state.registry.apply(rows.clone());
        let topics = records::touched(&self.state.registry, &rows, &undo);
        if let Err(error) = self.commit_records(&rows, &topics).await {
            self.state.registry.apply(undo);
            return Err(error);
        }
        if self.expires.is_none() && rows.iter().any(|row| matches!(row, Row::Client(..))) {
            self.expires = Some(at);
        }
        self.after_commit(&rows).await;
        Ok(())
    }

    /// Shuts out the clients whose time is over.
    async fn expire(&mut self) {
        let (Some(after), until) = (self.expires, now()) else { return };
        let topics = records::touched_by_expiry(&self.state.registry, after, until);
        match self.commit_records(&[], &topics).await {
            Ok(()) => self.expires = self.state.registry.expiring(until, u64::MAX).next().map(|_| until),
            Err(error) => tracing::error!("a client whose time is over was not shut out: {error}"),
        }
    }

    async fn refresh(&mut self) -> Result<(), DeskError> {
        let topics = records::all_topics(&self.state.registry, &self.state.ledger);
        self.commit_records(&[], &topics).await
    }

    async fn commit_records(&mut self, rows: &[Row], topics: &BTreeSet<Topic>) -> Result<(), DeskError> {
        let changes = self.state.ledger.plan(&self.state.registry, now(), topics);
        let signed = changes.iter().map(|change| self.sign(change)).collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() && signed.is_empty() {
            return Ok(());
        }
        self.store.commit(rows, &signed).await?;
        for change in &changes {
            self.tell_watchers(WatchEvent::of_change(&self.state.registry, now(), change));
        }
        self.state.ledger.apply(changes);
        for Signed { topic, record } in signed {
            tracing::info!(%topic, rev = record.as_ref().map_or(0, |(rev, _)| *rev), "record published");
            let signed = record.map(|(_, signed)| signed).unwrap_or_default();
            self.send(Post::Record { topic, signed }).await;
        }
        Ok(())
    }

    fn sign(&self, (topic, content): &Change) -> Result<Signed, DeskError> {
        let sign = |content: &records::Content| Ok((content.rev(), content.sign(&self.state.signer)?));
        let record = content.as_ref().map(sign).transpose().map_err(DeskError::Record)?;
        Ok(Signed { topic: *topic, record })
    }

    async fn after_commit(&mut self, rows: &[Row]) {
        let nodes: Vec<_> =
            rows.iter().filter_map(|row| if let Row::Node(id, _) = row { Some(*id) } else { None }).collect();
        self.nodes.admit(&self.state.registry, nodes.iter().copied());
        for id in nodes.into_iter().filter(|id| self.state.registry.live_node(*id).is_none()) {
            self.state.live.forget(id);
            self.send(Post::Remove(id)).await;
        }
    }

    async fn send(&self, post: Post) {
        // Fails only while stopping; the next start publishes everything anyway.
        let _ = self.post.send(post).await;
    }

    fn tell_watchers(&self, event: WatchEvent) {
        // Fails when no one watches.
        let _ = self.watch.send(Arc::new(event));
    }
}

/// Seconds since 1970; 0 before.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

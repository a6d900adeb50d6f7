//! Controller: the one task that owns the registry, the published records and the live state. All others send
//! it queries and changes. A change is planned on the registry (pure), stored with the records that follow
//! from it in one transaction, and only then published and answered. After a transaction that failed, what is on disk
//! replaces what is in memory.

mod admin_token;
mod admitted;
mod recovery;
mod time;
mod uplink;
mod watch;

pub use crate::clock::now;
pub use admitted::Admitted;
pub use watch::WatchEvent;

use crate::{
    audit::Entry,
    broker::Event,
    clock,
    live::Live,
    obeyed::Ordered,
    records::{self, Change, PublishedRecords},
    registry::{Changes, Moment, Node, Registry, RegistryError, Row},
    store::{Loaded, Settled, Signed, Store, StoreError},
};
use gatewrt_protocol::{NetworkId, NodeId, RecordError, Signer, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

/// Interval of removing expired tombstones, and the rows and the access of their nodes.
const TOMBSTONE_INTERVAL: Duration = Duration::from_secs(3600);
/// Shortest interval between updates of one node's facts. Others get each update, and no node may keep them
/// busy.
const FACTS_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of looking at the clock, and for what has expired.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of attempts to find out what is on disk, after a failure.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);
/// Largest number of queries and changes that wait for the controller.
const JOBS: usize = 256;
/// Number of events that a slow watcher may fall behind before it misses some.
const WATCH: usize = 1024;

/// Message from the controller to the broker. Deliveries are carried out in order.
#[derive(Debug)]
pub enum Delivery {
    /// A retained message; an empty payload clears the topic.
    Record {
        /// Topic of the record.
        topic: Topic,
        /// Signed record.
        signed: String,
    },
    /// Signal that all deliveries before it are done.
    Flush(oneshot::Sender<()>),
    /// End of the session of a node that was removed.
    EndSession(NodeId),
}

/// State that the controller owns, as queries see it.
pub struct ControllerState {
    /// Settings of the admin and facts of the nodes.
    pub registry: Registry,
    /// Published record of each topic.
    pub published: PublishedRecords,
    /// Sessions, presence and reports of nodes.
    pub live: Live,
    /// Reason why no change is made: it isn't known what is on the disk.
    pub unsure: Option<String>,
    /// Records that the last change published, or holds back.
    pub ordered: Ordered,
    signer: Arc<Signer>,
}

impl ControllerState {
    /// Signed text of the record that is published on a topic.
    pub fn signed(&self, topic: &Topic) -> Option<String> {
        self.published.content(topic).map(|content| content.sign(&self.signer).expect("it was signed before"))
    }

    /// Seconds by which the clock is behind the latest time that was seen; `None` while it is not.
    pub fn clock_behind(&self) -> Option<u64> {
        self.registry.seen().behind(clock::shown())
    }
}

/// Error of a query or change sent to the controller.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The change is refused.
    #[error(transparent)]
    Refused(#[from] RegistryError),
    /// The database failed. Nothing was changed, unless it is [`StoreError::Unsure`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change was not tried: it isn't known what an earlier one has left on the disk.
    #[error(transparent)]
    NotTried(StoreError),
    /// A record would be longer than routers accept. Nothing was changed.
    #[error("a record would be too long: {0}")]
    Record(RecordError),
    /// The object was changed since the caller last read it.
    #[error("{0} was changed meanwhile")]
    Changed(String),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping: try again in a moment")]
    Stopping,
}

type Completion = Box<dyn FnOnce(Result<&ControllerState, ControllerError>) + Send>;
type Order = Box<
    dyn FnOnce(Result<(&ControllerState, &Moment), ControllerError>) -> Option<(Changes, Completion)> + Send,
>;

/// Mode of a change: real, or a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The change is stored, published and answered.
    Real,
    /// The change is checked as far as it can fail, and answered as if it were made. Nothing is stored or
    /// published.
    DryRun,
}

enum Job {
    View(Box<dyn FnOnce(&ControllerState) + Send>),
    Change(Mode, Order),
    Audit { net: Option<NetworkId>, before: Option<i64>, limit: u32, reply: oneshot::Sender<AuditPage> },
}

type AuditPage = Result<Vec<(i64, Entry)>, StoreError>;

/// Handle to send queries and changes to the controller; cheap to clone. The controller stops when the last one is
/// dropped.
#[derive(Clone)]
pub struct ControllerHandle {
    jobs: mpsc::Sender<Job>,
    watch: broadcast::Sender<Arc<WatchEvent>>,
}

impl ControllerHandle {
    /// Answers a query about the controller's state.
    pub async fn view<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&ControllerState) -> T + Send + 'static,
    ) -> Result<T, ControllerError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::View(Box::new(move |state| drop(reply.send(ask(state)))));
        self.jobs.send(job).await.map_err(|_| ControllerError::Stopping)?;
        answer.await.map_err(|_| ControllerError::Stopping)
    }

    /// Makes a change, or only tries it: `plan` plans it on the registry, `then` makes the answer from the state
    /// afterwards.
    pub async fn change<T: Send + 'static, U: Send + 'static>(
        &self,
        mode: Mode,
        plan: impl FnOnce(&ControllerState, &Moment) -> Result<(Changes, T), ControllerError> + Send + 'static,
        then: impl FnOnce(&ControllerState, T) -> U + Send + 'static,
    ) -> Result<U, ControllerError> {
        let (reply, answer) = oneshot::channel();
        let order: Order =
            Box::new(move |asked| match asked.and_then(|(state, moment)| plan(state, moment)) {
                Err(refused) => {
                    drop(reply.send(Err(refused)));
                    None
                }
                Ok((changes, outcome)) => {
                    let done: Completion =
                        Box::new(move |state| drop(reply.send(state.map(|state| then(state, outcome)))));
                    Some((changes, done))
                }
            });
        self.jobs.send(Job::Change(mode, order)).await.map_err(|_| ControllerError::Stopping)?;
        answer.await.map_err(|_| ControllerError::Stopping)?
    }

    /// Reads entries of the audit log, newest first; see [`Store::audit`].
    pub async fn audit(
        &self,
        net: Option<NetworkId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Entry)>, ControllerError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Audit { net, before, limit, reply };
        self.jobs.send(job).await.map_err(|_| ControllerError::Stopping)?;
        Ok(answer.await.map_err(|_| ControllerError::Stopping)??)
    }

    /// Subscribes to all events for watchers from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<WatchEvent>> {
        self.watch.subscribe()
    }
}

/// Controller: owner of the registry, the published records and the live state. See the module.
pub struct Controller {
    state: ControllerState,
    store: Store,
    admitted: Admitted,
    deliveries: mpsc::Sender<Delivery>,
    jobs: mpsc::Receiver<Job>,
    watch: broadcast::Sender<Arc<WatchEvent>>,
    /// Nodes whose facts were updated within the interval; `true` if a newer report waits.
    recent: BTreeMap<NodeId, bool>,
    /// Connected nodes that are not known.
    strangers: recovery::Strangers,
    /// Time at which connected nodes told last of something newer, in seconds since 1970.
    told: BTreeMap<NodeId, u64>,
    /// Time at which the running operation began: all that had expired by then was handled before.
    time: u64,
    /// Time at which something expires next; none if nothing will.
    next_expiry: Option<u64>,
    /// Moment of the last attempt to store the time, if it failed.
    time_unstored: Option<Instant>,
}

impl Controller {
    /// Creates the controller of the stored state, its handle, and the nodes that it admits. Its deliveries go to
    /// `deliveries`.
    pub fn new(
        loaded: Loaded,
        store: Store,
        signer: Arc<Signer>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> (Self, ControllerHandle, Admitted) {
        // Before anything asks for the time.
        clock::count_from(loaded.registry.seen().latest);
        let (admitted, time) = (Admitted::default(), now());
        admitted.update(&loaded.registry, loaded.registry.nodes().map(|node| node.id), time);
        let (sender, jobs) = mpsc::channel(JOBS);
        let (watch, _) = broadcast::channel(WATCH);
        let next_expiry = loaded.registry.next_expiry();
        let state = ControllerState {
            registry: loaded.registry,
            published: loaded.published,
            live: Live::default(),
            unsure: None,
            ordered: Ordered::new(),
            signer,
        };
        let handle = ControllerHandle { jobs: sender, watch: watch.clone() };
        let mut controller = Self {
            state,
            store,
            admitted: admitted.clone(),
            deliveries,
            jobs,
            watch,
            recent: BTreeMap::new(),
            strangers: recovery::Strangers::default(),
            told: BTreeMap::new(),
            time,
            next_expiry,
            time_unstored: None,
        };
        controller.raise_strays();
        controller.admit_strangers();
        (controller, handle, admitted)
    }

    /// Brings the stored records up to date before anything is served: changed settings of this start,
    /// expired tombstones, fields that an earlier version did not have.
    pub async fn reconcile_records(
        &mut self,
        control: BTreeSet<SocketAddr>,
        brokers: Vec<String>,
    ) -> Result<(), ControllerError> {
        self.keep_time().await;
        let mut rows = self.state.registry.begin_recovery();
        rows.extend(self.state.registry.set_control(control));
        rows.extend(self.state.registry.set_brokers(brokers));
        self.commit(rows).await?;
        self.refresh().await
    }

    /// Addresses of the coordinator, as stored at its last start.
    pub fn control(&self) -> &[SocketAddr] {
        self.state.registry.control()
    }

    /// Signed texts of all published records: the broker's retained messages at its start.
    pub fn retained(&self) -> Vec<(Topic, String)> {
        let published = self.state.published.iter();
        published.filter_map(|(topic, _)| Some((*topic, self.state.signed(topic)?))).collect()
    }

    /// Runs the controller until every handle is dropped, then closes the database.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut tombstones = interval(TOMBSTONE_INTERVAL);
        let mut facts = interval(FACTS_INTERVAL);
        let mut clock = interval(CLOCK_INTERVAL);
        let mut settling = interval(SETTLE_INTERVAL);
        let mut listening = true;
        loop {
            let is_sure = self.store.is_sure();
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.handle_job(job).await,
                    None => break,
                },
                event = events.recv(), if listening => match event {
                    Some(event) => self.handle_event(event).await,
                    None => listening = false,
                },
                _ = facts.tick(), if is_sure && !self.recent.is_empty() => self.update_waiting_facts().await,
                _ = clock.tick(), if is_sure => self.keep_time().await,
                // Until it is settled, each of the others would fail.
                _ = settling.tick(), if !is_sure => drop(self.settle().await),
                _ = tombstones.tick(), if is_sure => {
                    if let Err(error) = self.refresh().await {
                        tracing::error!("can't clear old tombstones: {error}");
                    }
                }
            }
        }
        self.store_time().await;
        self.store.close().await;
    }

    async fn handle_job(&mut self, job: Job) {
        self.keep_time().await;
        match job {
            Job::View(ask) => {
                self.state.unsure = self.store.why_unsure().map(str::to_owned);
                ask(&self.state);
            }
            Job::Change(mode, order) => {
                // A change is planned, and answered if there is nothing to do, by what is in memory.
                let settled = match self.settle().await {
                    Err(ControllerError::Store(error)) => Err(ControllerError::NotTried(error)),
                    settled => settled,
                };
                self.state.ordered.clear();
                let moment = Moment { now: self.time, entropy: crate::pki::random() };
                let Some((changes, done)) = order(settled.map(|_| (&self.state, &moment))) else { return };
                match mode {
                    Mode::Real => self.carry_out(changes, done).await,
                    Mode::DryRun => self.dry_run(changes, done),
                }
            }
            Job::Audit { net, before, limit, reply } => {
                // Fails if the caller has gone.
                let _ = reply.send(self.store.audit(net, before, limit).await);
            }
        }
    }

    async fn carry_out(&mut self, changes: Changes, done: Completion) {
        let outcome = self.commit(changes).await;
        if let Err(error) = &outcome {
            tracing::error!("a change was not made: {error}");
        }
        done(outcome.map(|()| &self.state));
    }

    /// Tries a change: applies it, signs its records, answers, and undoes it.
    fn dry_run(&mut self, changes: Changes, done: Completion) {
        let undo = self.state.registry.apply(changes.clone());
        let topics = records::touched(&self.state.registry, &changes, &undo);
        let records = self.state.published.plan(&self.state.registry, self.time, &topics);
        let signed = records.iter().try_for_each(|change| self.sign(change).map(drop));
        done(signed.map(|()| &self.state));
        self.state.registry.apply(undo);
    }

    /// Commits rows and the records that follow from them: in memory, on disk, then at the nodes.
    async fn commit(&mut self, mut rows: Changes) -> Result<(), ControllerError> {
        if rows.is_empty() {
            return Ok(());
        }
        rows.extend(self.seen_row());
        let undo = self.state.registry.apply(rows.clone());
        let topics = records::touched(&self.state.registry, &rows, &undo);
        if let Err(error) = self.store_and_publish(&rows, &topics).await {
            self.state.registry.apply(undo);
            self.is_stored_after_all(error).await?;
        }
        let registry = &self.state.registry;
        let held_back = topics.into_iter().filter(|topic| records::is_held_back(registry, topic));
        let held_back = held_back.map(|topic| (topic, None));
        self.state.ordered.extend(held_back);
        self.next_expiry = self.state.registry.next_expiry();
        self.handle_changed_nodes(rows.iter().filter_map(node_of).collect()).await;
        Ok(())
    }

    /// Brings all records up to date. Nodes whose tombstones have expired lose their access, and their rows if their
    /// network is gone.
    async fn refresh(&mut self) -> Result<(), ControllerError> {
        self.keep_time().await;
        let topics = records::all_topics(&self.state.registry, &self.state.published);
        self.commit_records(&topics).await?;
        let nodes = self.state.registry.nodes().map(|node| node.id);
        self.admitted.update(&self.state.registry, nodes, self.time);
        self.commit(self.state.registry.purge(self.time)).await
    }

    /// Commits the records of topics that follow from the registry as it is.
    async fn commit_records(&mut self, topics: &BTreeSet<Topic>) -> Result<(), ControllerError> {
        match self.store_and_publish(&[], topics).await {
            Ok(()) => Ok(()),
            Err(error) => self.is_stored_after_all(error).await,
        }
    }

    /// Finds out what a change that failed has left on disk. Succeeds if it is there, and then in effect.
    async fn is_stored_after_all(&mut self, error: ControllerError) -> Result<(), ControllerError> {
        let was_tried = match &error {
            ControllerError::Store(error) => !matches!(error, StoreError::Unsure { .. }),
            _ => false,
        };
        if self.store.is_sure() || !was_tried {
            return Err(error);
        }
        tracing::error!("the database is opened anew after a failure: {error}");
        match self.settle().await? {
            Some(Settled::Stored) => Ok(()),
            Some(Settled::NotStored) | None => Err(error),
        }
    }

    /// Finds out what is on disk, where that is not known, and takes it over. Never between planning a change and
    /// storing it: the plan would be one for another state.
    async fn settle(&mut self) -> Result<Option<Settled>, ControllerError> {
        if self.store.is_sure() {
            return Ok(None);
        }
        let (settled, loaded) = self.store.settle(&self.state.signer.public()).await?;
        self.take_over(loaded).await;
        tracing::info!(
            "the database is read again: the change that failed is {}",
            match settled {
                Settled::Stored => "stored",
                Settled::NotStored => "not stored",
            }
        );
        Ok(Some(settled))
    }

    /// Replaces the state in memory by that on disk, and publishes where they differ.
    async fn take_over(&mut self, loaded: Loaded) {
        let before = std::mem::replace(&mut self.state.registry, loaded.registry);
        let changes = self.state.published.changes_to(&loaded.published);
        self.state.published = loaded.published;
        self.raise_strays();
        let signed = changes.iter().map(|change| self.sign(change).expect("it was signed before")).collect();
        let nodes: BTreeSet<NodeId> =
            before.nodes().chain(self.state.registry.nodes()).map(|node| node.id).collect();
        let changed = |id: &NodeId| before.node(*id) != self.state.registry.node(*id);
        let changed: Vec<NodeId> = nodes.into_iter().filter(changed).collect();
        self.admitted.update(&self.state.registry, changed.iter().copied(), self.time);
        self.admit_strangers();
        self.publish(&changes, signed).await;
        self.handle_changed_nodes(changed).await;
        self.next_expiry = self.state.registry.next_expiry();
    }

    /// Signs the records of topics that follow from the registry, stores them with `rows`, and then publishes them.
    async fn store_and_publish(
        &mut self,
        rows: &[Row],
        topics: &BTreeSet<Topic>,
    ) -> Result<(), ControllerError> {
        let changes = self.state.published.plan(&self.state.registry, self.time, topics);
        let signed = changes.iter().map(|change| self.sign(change)).collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() && signed.is_empty() {
            return Ok(());
        }
        self.store.commit(rows, &signed).await?;
        // Before publishing: a node that is removed reads nothing of it but its own tombstone.
        self.admitted.update(&self.state.registry, rows.iter().filter_map(node_of), self.time);
        self.publish(&changes, signed).await;
        self.state.published.apply(changes);
        Ok(())
    }

    /// Publishes changes of records, and tells watchers.
    async fn publish(&mut self, changes: &[Change], signed: Vec<Signed>) {
        let revision = |(topic, content): &Change| Some((*topic, Some(content.as_ref()?.rev())));
        self.state.ordered = changes.iter().filter_map(revision).collect();
        for change in changes {
            self.notify_watchers(WatchEvent::of_change(&self.state.registry, self.time, change));
        }
        for Signed { topic, record } in signed {
            tracing::info!(%topic, rev = record.as_ref().map_or(0, |(rev, _)| *rev), "record published");
            let signed = record.map(|(_, signed)| signed).unwrap_or_default();
            self.send(Delivery::Record { topic, signed }).await;
        }
    }

    fn sign(&self, (topic, content): &Change) -> Result<Signed, ControllerError> {
        let sign = |content: &records::Content| Ok((content.rev(), content.sign(&self.state.signer)?));
        let record = content.as_ref().map(sign).transpose().map_err(ControllerError::Record)?;
        Ok(Signed { topic: *topic, record })
    }

    /// Ends the sessions of nodes that were removed; the broker does it for those that have read their tombstones. Ends
    /// those of nodes that were not known until now: they connect again, and read what they may read.
    async fn handle_changed_nodes(&mut self, nodes: Vec<NodeId>) {
        for id in nodes {
            let node = self.state.registry.node(id);
            let (is_live, is_told) =
                (node.is_some_and(Node::is_live), node.is_some_and(|node| node.told.is_some()));
            match node {
                Some(_) if is_live => {}
                // As long as it has a session, it can read its end.
                Some(_) => self.state.live.handle_removed(id),
                None => self.state.live.forget(id),
            }
            if (!is_live && !is_told) || self.strangers.remove(id) {
                self.end_session(id).await;
            }
        }
    }

    // `&mut`, here and in what calls it, as no thread may borrow a database connection from another.
    async fn send(&mut self, delivery: Delivery) {
        // Fails only while stopping; the next start publishes everything again.
        let _ = self.deliveries.send(delivery).await;
    }

    fn notify_watchers(&self, event: WatchEvent) {
        // Fails if there is no watcher.
        let _ = self.watch.send(Arc::new(event));
    }
}

/// Node whose row it is, if it is a node's.
fn node_of(row: &Row) -> Option<NodeId> {
    if let Row::Node(id, _) = row { Some(*id) } else { None }
}

/// Ticks at an interval. Those that nobody waited for, as there was nothing to do, are not made up for.
fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

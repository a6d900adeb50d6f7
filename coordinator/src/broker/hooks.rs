//! Hooks of the engine: checks before it acts, and events after. All that is not explicitly allowed is
//! refused, for everyone.

use super::{END_OF_SESSION, Event, counters, state::BrokerState};
use async_trait::async_trait;
use rmqtt::{
    codec::v5::SubscribeAckReason,
    context::ServerContext,
    hook::{Handler, HookResult, Parameter, ReturnType, Type},
    session::Session,
    types::{
        AuthResult, ConnectInfo, From as Author, FromType, Id, LastWill, Publish, PublishAclResult, QoS,
        Reason, Subscribe, SubscribeAclResult,
    },
};
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// Poll interval for the end of a session: the engine doesn't signal it.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Rest of the session of a removed node that has acknowledged its tombstone: time to leave by itself.
const TOLD_SESSION: Duration = Duration::from_secs(1);

const ASKED: [Type; 11] = [
    Type::ClientAuthenticate,
    Type::ClientConnected,
    Type::ClientDisconnected,
    Type::ClientSubscribe,
    Type::ClientSubscribeCheckAcl,
    Type::MessagePublishCheckAcl,
    Type::MessagePublish,
    Type::MessageExpiryCheck,
    Type::MessageDelivered,
    Type::MessageAcked,
    Type::MessageDropped,
];

/// Installs the checks and events of this file in the engine. No connection may be accepted before that.
pub(super) async fn install(engine: &ServerContext, state: &Arc<BrokerState>) {
    let register = engine.extends.hook_mgr().register();
    for asked in ASKED {
        register.add(asked, Box::new(Hooks { state: state.clone(), engine: engine.clone() })).await;
    }
    register.start().await;
}

struct Hooks {
    state: Arc<BrokerState>,
    engine: ServerContext,
}

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, asked: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        let answer = match asked {
            Parameter::ClientAuthenticate(connect) => {
                Some(HookResult::AuthResult(self.authenticate(connect).await))
            }
            Parameter::ClientSubscribe(session, subscribe) => self.narrow(session, subscribe).or(so_far),
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                Some(HookResult::SubscribeAclResult(self.check_subscribe(session, subscribe)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                Some(HookResult::PublishAclResult(self.check_publish(session, publish).await))
            }
            Parameter::MessageExpiryCheck(session, _, publish) => {
                self.is_withheld(session, publish).then_some(HookResult::MessageExpiry)
            }
            Parameter::MessagePublish(_, author, publish) => {
                self.handle_will(author, publish).await;
                so_far
            }
            Parameter::ClientConnected(session) => {
                self.handle_connected(session).await;
                so_far
            }
            Parameter::ClientDisconnected(session, reason) => {
                self.handle_disconnected(session, reason).await;
                so_far
            }
            Parameter::MessageDelivered(session, _, publish) => {
                self.state.count_delivered(&session.id.client_id, &publish.topic, &publish.payload);
                so_far
            }
            Parameter::MessageAcked(session, _, publish) => {
                self.handle_acked(session, publish).await;
                so_far
            }
            Parameter::MessageDropped(Some(to), ..) => {
                self.handle_dropped(&to.client_id);
                so_far
            }
            _ => so_far,
        };
        (true, answer)
    }
}

impl Hooks {
    async fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        match self.admit(connect) {
            Ok(link) => {
                self.end_older(connect.client_id(), link).await;
                AuthResult::Allow(false, None)
            }
            Err(refusal) => {
                tracing::info!(client = %connect.client_id(), "connection refused: {refusal}");
                self.state.count(|counters| counters.refused_connects += 1);
                AuthResult::NotAuthorized
            }
        }
    }

    /// Checks a CONNECT packet, and finds the link on which it came.
    fn admit(&self, connect: &ConnectInfo) -> Result<SocketAddr, Refusal> {
        let ConnectInfo::V3(id, connect) = connect else { return Err(Refusal::Version) };
        let link = id.remote_addr.ok_or(Refusal::NoLink)?;
        let node = self.state.links.owner(link).ok_or(Refusal::NoLink)?.node;
        if *id.client_id != *node {
            return Err(Refusal::ForeignClientId(node));
        }
        if !connect.clean_session {
            return Err(Refusal::Persistent);
        }
        let will = connect.last_will.as_ref().map(LastWill::V3);
        self.state.access(&node, |access| match will {
            _ if !access.may_connect() => Err(Refusal::Unknown),
            Some(LastWill::V3(will)) if !access.may_have_will(&will.topic) => {
                Err(Refusal::Will(will.topic.to_string()))
            }
            _ => Ok(link),
        })
    }

    /// Ends older sessions of a node before its new one begins. Otherwise the engine refuses a node whose older session
    /// is just ending, and waits long for a session that is stuck in sending.
    async fn end_older(&self, node: &str, link: SocketAddr) {
        self.state.links.close_older(node, link);
        let ended = async {
            while self.engine.extends.shared().await.exist(node) {
                sleep(POLL_INTERVAL).await;
            }
        };
        let _ = timeout(END_OF_SESSION, ended).await;
    }

    /// Narrows what a removed node subscribes to in its network to its own tombstone. Else it would get all that is
    /// retained there, each record to be withheld.
    fn narrow(&self, session: &Session, subscribe: &Subscribe) -> Option<HookResult> {
        let (node, filter) = (&*session.id.client_id, &*subscribe.topic_filter);
        let narrowed = self.state.access(node, |access| access.narrowed(filter))?;
        Some(HookResult::TopicFilter(Some(narrowed.into())))
    }

    fn check_subscribe(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let (node, filter) = (&*session.id.client_id, &*subscribe.topic_filter);
        if self.state.access(node, |access| access.may_subscribe(filter)) {
            return SubscribeAclResult::new_success(QoS::AtLeastOnce, None);
        }
        tracing::info!(node, filter, "subscription refused");
        self.state.count(|counters| counters.refused_subscribes += 1);
        SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
    }

    /// Checks if a node may publish a message, and emits it as an event. A refused message is acknowledged and dropped: so
    /// a daemon that knows more topics than this coordinator keeps its session. One whose event can't be delivered in
    /// time is not acknowledged: the session ends, and the node sends it again after it has reconnected.
    async fn check_publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        let node = &*session.id.client_id;
        let limits = &self.state.limits;
        let longest = if publish.topic.ends_with("/reply") { limits.own_payload } else { limits.payload };
        if publish.payload.len() > longest || !self.state.may_publish(node, &publish.topic) {
            self.refuse_publish(node, &publish.topic);
            return PublishAclResult::rejected(false, None);
        }
        match self.handle_published(node, publish).await {
            true => PublishAclResult::allow(),
            false => PublishAclResult::rejected(true, Some("the coordinator is busy".into())),
        }
    }

    /// Emits the last will of a node as an event, if the node may leave it. The engine itself does not check wills; the
    /// store of retained messages checks them again.
    async fn handle_will(&self, author: &Author, publish: &Publish) {
        if !matches!(author.typ(), FromType::LastWill) {
            return;
        }
        if self.state.may_leave_will(author, &publish.topic) {
            self.handle_published(&author.client_id, publish).await;
        } else {
            self.refuse_publish(&author.client_id, &publish.topic);
        }
    }

    async fn handle_published(&self, node: &str, publish: &Publish) -> bool {
        self.state.count(|all| counters::count(&mut all.received, &publish.topic, &publish.payload));
        let (topic, payload) = (publish.topic.to_string(), publish.payload.clone());
        self.state
            .emit(Event::Published { node: node.to_owned(), topic, payload, retain: publish.retain })
            .await
    }

    fn refuse_publish(&self, node: &str, topic: &str) {
        // A removed node that does not know yet says that it is online, and reports.
        match self.state.is_removed(node) {
            true => tracing::debug!(node, topic, "message of a removed node refused"),
            false => tracing::info!(node, topic, "message refused"),
        }
        self.state.count(|counters| counters.refused_publishes += 1);
    }

    /// True if a message must not be delivered to a node, because the node may not read its topic any more: its rights
    /// may have changed since it subscribed.
    fn is_withheld(&self, session: &Session, publish: &Publish) -> bool {
        let withheld = !self.state.access(&session.id.client_id, |access| access.may_read(&publish.topic));
        if withheld {
            self.state.count(|counters| counters.withheld += 1);
        }
        withheld
    }

    async fn handle_connected(&self, session: &Session) {
        let node = session.id.client_id.to_string();
        let peer = session.id.remote_addr.and_then(|link| {
            self.state.links.admit(link);
            self.state.links.owner(link)
        });
        let identity = peer.as_ref().and_then(|owner| owner.identity);
        let from = peer.map(|owner| owner.peer);
        self.state.session_began(&session.id);
        if self.state.is_removed(&node) {
            tracing::debug!(node, ?from, "removed node connected");
            let time = self.state.limits.removed_session;
            tokio::spawn(end_after(time, self.state.clone(), session.id.clone()));
        } else {
            tracing::info!(node, ?from, "node connected");
        }
        self.state.emit(Event::Connected { node, from, identity }).await;
    }

    /// Emits an event when a removed node has acknowledged its tombstone. There is nothing left for it to read.
    async fn handle_acked(&self, session: &Session, publish: &Publish) {
        let node = &*session.id.client_id;
        if self.state.access(node, |access| access.is_tombstone(&publish.topic)) {
            self.state.emit(Event::Told { node: node.to_owned(), record: publish.payload.clone() }).await;
            tokio::spawn(end_after(TOLD_SESSION, self.state.clone(), session.id.clone()));
        }
    }

    async fn handle_disconnected(&self, session: &Session, reason: &Reason) {
        if self.state.session_ended(&session.id) {
            let node = session.id.client_id.to_string();
            match self.state.is_removed(&node) {
                true => tracing::debug!(node, %reason, "removed node disconnected"),
                false => tracing::info!(node, %reason, "node disconnected"),
            }
            self.state.emit(Event::Disconnected { node }).await;
        }
    }

    fn handle_dropped(&self, node: &str) {
        tracing::debug!(node, "delivery dropped");
        self.state.count(|counters| counters.dropped += 1);
    }
}

/// Ends a session of a removed node after some time, if it is still there: not a newer one.
async fn end_after(time: Duration, state: Arc<BrokerState>, session: Id) {
    sleep(time).await;
    let is_there = state.sessions.borrow().get(&*session.client_id) == Some(&session);
    if is_there {
        state.links.close(&session.client_id);
    }
}

/// Reason why the broker refuses a connection.
enum Refusal {
    Version,
    NoLink,
    ForeignClientId(String),
    Persistent,
    Unknown,
    Will(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("only MQTT 3.1 and 3.1.1 are spoken"),
            Self::NoLink => f.write_str("it did not come over a verified connection"),
            Self::ForeignClientId(node) => write!(f, "the certificate is that of {node}"),
            Self::Persistent => f.write_str("only clean sessions are accepted"),
            Self::Unknown => f.write_str("no such node"),
            Self::Will(topic) => write!(f, "its will is for {topic}"),
        }
    }
}

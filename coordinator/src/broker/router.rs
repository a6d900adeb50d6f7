//! Subscriptions of the engine, changed one at a time. On its own, the engine loses a subscription that is
//! added while the last other one to the same filter is being removed: that node would get nothing until it
//! reconnects.

use async_trait::async_trait;
use rmqtt::{
    router::{DefaultRouter, Router},
    types::{
        AllRelationsMap, HashMap, Id, NodeId, Route, SubRelationsMap, SubsSearchParams, SubsSearchResult,
        SubscriptionOptions, TopicName,
    },
    utils::Counter,
};
use tokio::sync::Mutex;

pub(super) struct SerialRouter {
    inner: DefaultRouter,
    changing: Mutex<()>,
}

impl SerialRouter {
    pub(super) fn new(inner: DefaultRouter) -> Self {
        Self { inner, changing: Mutex::default() }
    }
}

#[async_trait]
impl Router for SerialRouter {
    async fn add(&self, filter: &str, id: Id, options: SubscriptionOptions) -> rmqtt::Result<()> {
        let _one = self.changing.lock().await;
        self.inner.add(filter, id, options).await
    }

    async fn remove(&self, filter: &str, id: Id) -> rmqtt::Result<bool> {
        let _one = self.changing.lock().await;
        self.inner.remove(filter, id).await
    }

    async fn matches(&self, id: Id, topic: &TopicName) -> rmqtt::Result<SubRelationsMap> {
        self.inner.matches(id, topic).await
    }

    async fn is_online(&self, node: NodeId, client: &str) -> bool {
        self.inner.is_online(node, client).await
    }

    async fn gets(&self, limit: usize) -> Vec<Route> {
        self.inner.gets(limit).await
    }

    async fn get(&self, topic: &str) -> rmqtt::Result<Vec<Route>> {
        self.inner.get(topic).await
    }

    async fn query_subscriptions(&self, query: &SubsSearchParams) -> Vec<SubsSearchResult> {
        self.inner.query_subscriptions(query).await
    }

    async fn topics_tree(&self) -> usize {
        self.inner.topics_tree().await
    }

    fn topics(&self) -> Counter {
        self.inner.topics()
    }

    fn routes(&self) -> Counter {
        self.inner.routes()
    }

    fn merge_topics(&self, topics: &HashMap<NodeId, Counter>) -> Counter {
        self.inner.merge_topics(topics)
    }

    fn merge_routes(&self, routes: &HashMap<NodeId, Counter>) -> Counter {
        self.inner.merge_routes(routes)
    }

    async fn list_topics(&self, top: usize) -> Vec<String> {
        self.inner.list_topics(top).await
    }

    async fn list_relations(&self, top: usize) -> Vec<serde_json::Value> {
        self.inner.list_relations(top).await
    }

    fn relations(&self) -> &AllRelationsMap {
        self.inner.relations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmqtt::context::ServerContext;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    /// While one client subscribes and unsubscribes all the time, the other's new subscription must not be
    /// lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn subscription_survives_removal_of_another_to_the_same_filter() {
        const FILTER: &str = "gatewrt/v1/net/aaaa/#";
        let engine = ServerContext::new().busy_check_enable(false).build().await;
        let router = Arc::new(SerialRouter::new(DefaultRouter::new(Some(engine))));
        let over = Arc::new(AtomicBool::new(false));
        let restless = tokio::spawn({
            let (router, over) = (router.clone(), over.clone());
            async move {
                while !over.load(Ordering::Relaxed) {
                    let id = Id::from(1, "restless".into());
                    router.add(FILTER, id.clone(), SubscriptionOptions::default()).await.unwrap();
                    router.remove(FILTER, id).await.unwrap();
                }
            }
        });
        let topic = TopicName::from("gatewrt/v1/net/aaaa/roster");
        for round in 0..20_000 {
            let id = Id::from(1, "steady".into());
            router.add(FILTER, id.clone(), SubscriptionOptions::default()).await.unwrap();
            let found = router.matches(id.clone(), &topic).await.unwrap();
            let found = found.values().flatten().any(|(_, client, ..)| *client == *id.client_id);
            assert!(found, "round {round}");
            assert!(router.remove(FILTER, id).await.unwrap(), "round {round}");
        }
        over.store(true, Ordering::Relaxed);
        restless.await.unwrap();
    }
}

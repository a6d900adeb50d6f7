use super::*;
use crate::{
    broker::{Directory, Standing},
    controller::{Admitted, Delivery},
    registry::{Recovery, Row},
    store::{Loaded, Store},
    testing::{AccessOp, Op, World, report},
};
use gatewrt_protocol::{Access, AccessRule, Assignment, Failure, Prefix, Signer, Verdict};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A controller of a network with one node, as restored from a backup.
struct Home {
    controller: Controller,
    admitted: Admitted,
    node: NodeId,
    signer: Arc<Signer>,
    _deliveries: mpsc::Receiver<Delivery>,
    _dir: tempfile::TempDir,
}

const NOW: u64 = 1_800_000_000;

impl Home {
    /// With a node that is awaited, and this network.
    async fn new(change: impl FnOnce(&mut World)) -> Self {
        let mut world = World::default();
        world.step(&Op::CreateNetwork(0, None));
        world.step(&Op::CreateCode(0, 3));
        let node = world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 1 }).joined.unwrap();
        let recovery = Recovery { waiting: Some([node].into()), ..Recovery::default() };
        world.registry.apply(vec![Row::Recovery(Some(recovery))]);
        change(&mut world);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::write(&path, "").unwrap();
        let (signer, store) =
            (Arc::new(Signer::from_seed(&[1; 32])), Store::open(&path, true).await.unwrap());
        let (sender, deliveries) = mpsc::channel(100);
        let loaded = Loaded { registry: world.registry, published: world.published };
        let (mut controller, _, admitted) = Controller::new(loaded, store, signer.clone(), sender);
        controller.time = NOW;
        Self { controller, admitted, node, signer, _deliveries: deliveries, _dir: dir }
    }

    fn is_awaited(&self) -> bool {
        self.controller.state.registry.is_awaited(self.node)
    }

    fn connect(&mut self) {
        let at = self.controller.time;
        self.controller.state.live.handle_connected(self.node, Some("203.0.113.9:1".parse().unwrap()), at);
    }

    /// Lets time pass, and the node report.
    async fn report_after(&mut self, seconds: u64, assignment: u64, failures: usize) {
        self.controller.time += seconds;
        let mut said = report(self.node, 1, 1);
        said.applied.assignment = assignment;
        said.failures = vec![Failure { what: "serve".into(), why: "no".into() }; failures];
        self.controller.handle_revisions(self.node, &said).await;
    }

    fn assignment(&self) -> Assignment {
        match self.controller.state.published.content(&Topic::Assignment(self.node)) {
            Some(Content::Assignment(assignment)) => assignment.clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn tell(&mut self, told: &Assignment) -> Result<(), &'static str> {
        let signed = self.signer.sign(told).unwrap();
        self.controller.handle_known(self.node, signed.as_bytes()).await
    }
}

/// Assignment with a rule for so many hosts.
fn with_hosts(standing: &Assignment, count: u32) -> Assignment {
    let host = |number: u32| format!("172.16.{}.{}/32", number / 100, number % 100 * 2).parse().unwrap();
    let hosts: Vec<Prefix> = (0..count).map(host).collect();
    let rule = AccessRule { verdict: Verdict::Deny, from: 0, to: 0, services: Vec::new() };
    let access = Access { sets: vec![hosts], rules: vec![rule], ..Access::default() };
    Assignment { rev: 90, access, ..standing.clone() }
}

#[tokio::test]
async fn node_without_newer_settings_is_heard_at_once() {
    let mut home = Home::new(|_| ()).await;
    home.connect();
    home.report_after(0, 9, 0).await;
    assert!(home.is_awaited(), "it has newer ones, and is to tell of them");
    home.report_after(1, home.assignment().rev, 0).await;
    assert!(!home.is_awaited());
}

/// As after a reboot, when something fails that all waits for: the change that would mend it may be held back.
#[tokio::test]
async fn node_that_can_apply_nothing_is_heard_after_a_minute() {
    for applied in [0, 1] {
        let mut home = Home::new(|_| ()).await;
        home.report_after(100, applied, 1).await;
        assert!(home.is_awaited(), "it is not connected");
        home.connect();
        home.report_after(TELLING_S - 1, applied, 1).await;
        assert!(home.is_awaited(), "it may still tell of newer settings");
        home.report_after(1, applied, 1).await;
        assert!(!home.is_awaited(), "{applied}");
    }
}

#[tokio::test]
async fn node_that_is_still_telling_is_given_time() {
    let mut home = Home::new(|_| ()).await;
    home.connect();
    home.controller.time += TELLING_S - 1;
    let node = home.node;
    let member = Topic::Member(home.assignment().net, node);
    let told = home.controller.state.published.content(&member).unwrap().clone().with_rev(7);
    let signed = told.sign(&home.signer).unwrap();
    home.controller.handle_known(node, signed.as_bytes()).await.unwrap();
    home.report_after(TELLING_S - 1, 0, 1).await;
    assert!(home.is_awaited());
    home.report_after(1, 0, 1).await;
    assert!(!home.is_awaited());
}

/// The node's rules and those of the network are too long for one record.
#[tokio::test]
async fn revision_is_not_raised_by_what_can_not_be_stored() {
    let mut home = Home::new(|world| {
        let nobody = Recovery { waiting: Some([].into()), ..Recovery::default() };
        world.registry.apply(vec![Row::Recovery(Some(nobody))]);
        let (from, to) = (vec![0], vec![0]);
        world.step(&Op::Access(AccessOp::Rule { net: 0, deny: true, from, to, services: Vec::new() }));
    })
    .await;
    let standing = home.assignment();
    assert!(!standing.access.is_open());
    let counts: Vec<u32> = (0..9000).collect();
    let fit = counts.partition_point(|count| home.signer.sign(&with_hosts(&standing, *count)).is_ok());
    let plan = |home: &Home| {
        let (state, topics) = (&home.controller.state, [Topic::Assignment(home.node)].into());
        state.published.plan(&state.registry, NOW, &topics)
    };
    home.tell(&with_hosts(&standing, counts[fit - 1])).await.unwrap();
    assert_eq!(home.assignment(), standing);
    assert_eq!(plan(&home), [], "what it was not learned from is not overtaken");
    home.tell(&with_hosts(&standing, 5)).await.unwrap();
    assert_eq!(home.assignment().rev, 91);
}

#[tokio::test]
async fn state_that_is_taken_over_from_the_disk_admits_strangers() {
    let mut home = Home::new(|world| {
        world.registry.apply(vec![Row::Recovery(None)]);
    })
    .await;
    let stranger = NodeId::from_entropy([9; 10]).to_string();
    assert_eq!(home.admitted.standing_of(&stranger), None);
    let mut registry = home.controller.state.registry.clone();
    registry.apply(vec![Row::Recovery(Some(Recovery::default()))]);
    let published = home.controller.state.published.clone();
    home.controller.take_over(Loaded { registry, published }).await;
    assert_eq!(home.admitted.standing_of(&stranger), Some(Standing::Stranger));
}

use super::*;
use crate::{
    records::{PublishedRecords, all_topics},
    registry::{IngressSpec, Moment, NetworkPatch, RecoveryError, RegistryError, Stray, TOMBSTONE_S},
    testing::{Op, World, client_spec, keys, request},
};
use gatewrt_protocol::{NetworkId, Topic, Verdict};

/// A world after the backup, and the one that was restored from it.
struct Home {
    later: World,
    restored: World,
    net: NetworkId,
    /// Nodes of the backup: `node-0` and `node-1`.
    nodes: [NodeId; 2],
}

impl Home {
    fn new() -> Self {
        let mut later = World::default();
        later.step(&Op::CreateNetwork(0, None));
        later.step(&Op::CreateCode(0, 200));
        let mut nodes = [1, 2].map(|key| join(&mut later, key));
        nodes.sort();
        let net = later.registry.networks().next().unwrap().id;
        let restored = later.clone();
        Self { later, restored, net, nodes }
    }

    fn told(&self, topic: Topic) -> &Content {
        self.later.published.content(&topic).unwrap()
    }

    fn member(&self, node: NodeId) -> Content {
        self.told(Topic::Member(self.net, node)).clone()
    }

    fn assignment(&self, node: NodeId) -> Content {
        self.told(Topic::Assignment(node)).clone()
    }

    /// Lets a node tell the restored coordinator of a record, under the key that it joined with.
    fn tell(&mut self, node: NodeId, told: &Content) -> Changes {
        let topic = match told {
            Content::Member(update) => Topic::Member(update.about().0, update.about().1),
            Content::Assignment(assignment) => Topic::Assignment(assignment.node),
            other => panic!("{other:?}"),
        };
        self.restored.published.raise(topic, told.rev());
        let identity = self.later.registry.node(node).map(|node| node.identity);
        let rows =
            learn(&self.restored.registry, Teller { node, identity }, told, self.restored.now).unwrap();
        self.take(rows.clone());
        rows
    }

    /// Puts rows into effect in the restored world, with their records.
    fn take(&mut self, rows: Changes) {
        let world = &mut self.restored;
        let undo = world.registry.apply(rows.clone());
        let topics = records::touched(&world.registry, &rows, &undo);
        let changes = world.published.plan(&world.registry, world.now, &topics);
        world.published.apply(changes);
    }

    /// A node that joined after the backup, and told of itself.
    fn stray(&mut self, key: u8) -> NodeId {
        let stray = join(&mut self.later, key);
        self.tell_all(stray);
        stray
    }

    fn tell_all(&mut self, node: NodeId) {
        for told in [self.member(node), self.assignment(node)] {
            self.tell(node, &told);
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.restored.now, entropy: [77; 32] }
    }

    fn find(&self, id: &str) -> &Stray {
        self.restored.registry.find_stray(id).unwrap()
    }

    fn findings(&self) -> Vec<&str> {
        self.restored.registry.recovery().unwrap().findings.iter().map(|finding| &*finding.what).collect()
    }

    fn access(&self, node: NodeId) -> &Access {
        match self.restored.published.content(&Topic::Assignment(node)) {
            Some(Content::Assignment(assignment)) => &assignment.access,
            other => panic!("{other:?}"),
        }
    }
}

fn join(world: &mut World, key: u8) -> NodeId {
    let step = world.step(&Op::Join { code: 0, key, name: key % 3, endpoint: key % 8 });
    step.joined.unwrap_or_else(|| panic!("{:?}", step.refused))
}

/// Makes a node of the later world an ingress with a client, whose key has this number.
fn let_in(home: &mut Home, node: NodeId, client: u8) {
    let net = home.net.to_string();
    let spec = IngressSpec { endpoint: Some("gw.example.org:51820".into()), ..IngressSpec::default() };
    let world = &mut home.later;
    let (rows, gateway) = world.registry.set_ingress(&net, &node.to_string(), &spec).unwrap();
    take(world, rows);
    let moment = Moment { now: world.now, entropy: [client; 32] };
    let spec = client_spec(&format!("client-{client}"), vec![gateway.name]);
    let (rows, _) = world.registry.create_client(&net, &spec, &keys(client), &moment).unwrap();
    take(world, rows);
}

fn take(world: &mut World, rows: Changes) {
    world.registry.apply(rows);
    let topics = all_topics(&world.registry, &world.published);
    let changes = world.published.plan(&world.registry, world.now, &topics);
    world.published.apply(changes);
}

#[test]
fn keys_of_a_stray_are_nobody_elses() {
    let mut home = Home::new();
    let stray = home.stray(9);
    let gateway = home.nodes[0];
    let_in(&mut home, gateway, 40);
    home.tell_all(gateway);
    let client_id = home.restored.registry.strays().map(Stray::id).find(|id| id.len() == 64).unwrap();
    let moment = home.moment();
    let secret = [5; gatewrt_protocol::join::SECRET_BYTES];
    let code = {
        let spec = crate::registry::CodeSpec { uses: 9, expires_in: 9000, roles: BTreeSet::new() };
        let (rows, (_, secret)) =
            home.restored.registry.create_code(&home.net.to_string(), &spec, &moment).unwrap();
        home.take(rows);
        secret
    };
    assert_ne!(code, secret);
    let registry = &home.restored.registry;
    let refused =
        |request: &gatewrt_protocol::JoinRequest| registry.join(request, None, &moment).unwrap_err();
    let is_stray = |error: RegistryError, id: &str| {
        assert_eq!(error.kind(), "key-known");
        assert!(error.to_string().contains(id) && error.advice().contains("adopt"), "{error}");
    };
    let anew = request(code, 100, 0, 0);
    is_stray(
        refused(&gatewrt_protocol::JoinRequest { key: WgPublicKey([10; 32]), ..anew.clone() }),
        &stray.to_string(),
    );
    is_stray(
        refused(&gatewrt_protocol::JoinRequest { identity: PublicKey([10; 32]), ..anew.clone() }),
        &stray.to_string(),
    );
    is_stray(
        refused(&gatewrt_protocol::JoinRequest { key: WgPublicKey([41; 32]), ..anew.clone() }),
        &client_id,
    );
    assert!(registry.join(&anew, None, &moment).is_ok());
    let (rows, gateway) = registry
        .set_ingress(
            &home.net.to_string(),
            &gateway.to_string(),
            &IngressSpec { endpoint: Some("gw.example.org:51820".into()), ..IngressSpec::default() },
        )
        .unwrap();
    home.take(rows);
    let spec = client_spec("phone", vec![gateway.name]);
    let create = |number| {
        home.restored.registry.create_client(&home.net.to_string(), &spec, &keys(number), &moment).map(drop)
    };
    is_stray(create(40).unwrap_err(), &client_id);
    is_stray(create(9).unwrap_err(), &stray.to_string());
    assert_eq!(create(50), Ok(()));
}

/// The router, or the client, came anew with its old keys before anybody told of it.
#[test]
fn stray_whose_keys_are_taken_can_be_cut_off() {
    for which in 0..2 {
        let mut home = Home::new();
        let stray = join(&mut home.later, 9);
        let known = home.later.registry.node(stray).unwrap().clone();
        let mut again = home.restored.registry.node(home.nodes[0]).unwrap().clone();
        again.id = NodeId::from_entropy([99; 10]);
        match which {
            0 => again.key = known.key,
            _ => again.identity = known.identity,
        }
        home.take(vec![Row::Node(again.id, Some(Box::new(again.clone())))]);
        home.tell_all(stray);
        let id = stray.to_string();
        assert!(!home.restored.registry.is_adoptable(home.find(&id)));
        let error = home.restored.registry.adopt_stray(&id, None, &home.moment()).unwrap_err();
        assert!(matches!(&error, RegistryError::Recovery(RecoveryError::KeysTaken { .. })), "{error:?}");
        let (rows, _) = home.restored.registry.cut_off_stray(&id, &home.moment()).unwrap();
        home.take(rows);
        let gone = home.restored.registry.node(stray).unwrap();
        assert!(!gone.is_live());
        assert!(gone.key != again.key && gone.identity != again.identity, "the database takes it");
        let end = home.restored.published.content(&Topic::Member(home.net, stray));
        assert!(matches!(end, Some(Content::Member(MemberUpdate::Tombstone(_)))), "{end:?}");
    }
}

#[test]
fn clients_of_an_adopted_gateway_are_strays() {
    let mut home = Home::new();
    let gateway = join(&mut home.later, 9);
    let_in(&mut home, gateway, 40);
    home.tell_all(gateway);
    assert_eq!(home.restored.registry.strays().count(), 1, "clients without a gateway can't be adopted");
    let (rows, _) = home.restored.registry.adopt_stray(&gateway.to_string(), None, &home.moment()).unwrap();
    home.take(rows);
    let client = home.restored.registry.strays().next().expect("its client").clone();
    assert_eq!(home.restored.registry.strays().count(), 1);
    assert!(
        home.findings().iter().any(|what| what.starts_with("a client of node-0")),
        "{:?}",
        home.findings()
    );
    let (rows, _) = home.restored.registry.adopt_stray(&client.id(), Some("phone"), &home.moment()).unwrap();
    home.take(rows);
    let phone = home.restored.registry.find_client(&home.net.to_string(), "phone").unwrap();
    let before = home.later.registry.clients().next().unwrap();
    assert_eq!((phone.key, phone.gateway, &phone.seats), (before.key, gateway, &before.seats));
}

#[test]
fn block_that_a_node_got_after_the_backup_stays_its_own() {
    let mut home = Home::new();
    let [gateway, other] = home.nodes;
    let_in(&mut home, gateway, 40);
    let blocks = home.later.registry.node(gateway).unwrap().blocks.clone();
    // Told by another node: the gateway may be asleep.
    let told = home.member(gateway);
    home.tell(other, &told);
    let net = home.net.to_string();
    let network = home.restored.registry.find_network(&net).unwrap();
    assert!(blocks.iter().all(|block| network.blocks.contains(block)), "{:?}", network.blocks);
    let spec = IngressSpec { endpoint: Some("gw.example.org:51820".into()), ..IngressSpec::default() };
    let blocks_of = |home: &Home, node: NodeId| {
        let (rows, set) = home.restored.registry.set_ingress(&net, &node.to_string(), &spec).unwrap();
        (rows, set.blocks)
    };
    let (rows, others) = blocks_of(&home, other);
    assert!(others.iter().all(|block| !blocks.iter().any(|taken| taken.overlaps(block))), "{others:?}");
    home.take(rows);
    assert_eq!(blocks_of(&home, gateway).1, blocks, "it gets them again");
    assert_eq!(home.tell(other, &told).len(), 0, "told again, nothing is new");

    // One that was given to another meanwhile is not its own any more.
    let mut home = Home::new();
    let [gateway, other] = home.nodes;
    let_in(&mut home, gateway, 40);
    let (rows, theirs) = blocks_of(&home, other);
    home.take(rows);
    assert_eq!(theirs, blocks);
    let told = home.member(gateway);
    home.tell(gateway, &told);
    assert_ne!(blocks_of(&home, gateway).1, blocks);
}

#[test]
fn stray_of_a_network_that_is_gone_reads_its_end() {
    let mut home = Home::new();
    let stray = home.stray(9);
    let rev = home.member(stray).rev();
    let tombstone = |home: &Home| match home.restored.published.content(&Topic::Member(home.net, stray)) {
        Some(Content::Member(MemberUpdate::Tombstone(tombstone))) => Some(tombstone.rev),
        _ => None,
    };
    // Its network is deleted, and it with it.
    let delete = |home: &mut Home| {
        let (rows, _) =
            home.restored.registry.delete_network(&home.net.to_string(), true, &home.moment()).unwrap();
        home.take(rows);
    };
    delete(&mut home);
    assert_eq!((home.restored.registry.strays().count(), tombstone(&home)), (0, Some(rev + 1)));

    // It tells of itself when its network is gone.
    let mut home = Home::new();
    let stray = join(&mut home.later, 9);
    delete(&mut home);
    home.tell_all(stray);
    let id = stray.to_string();
    assert!(!home.restored.registry.is_adoptable(home.find(&id)));
    let error = home.restored.registry.adopt_stray(&id, None, &home.moment()).unwrap_err();
    assert!(error.advice().contains("cut the stray off"), "{}", error.advice());
    let (rows, _) = home.restored.registry.cut_off_stray(&id, &home.moment()).unwrap();
    home.take(rows);
    assert_eq!(home.restored.registry.strays().count(), 0);
    let end = home.restored.published.content(&Topic::Member(home.net, stray));
    assert!(matches!(end, Some(Content::Member(MemberUpdate::Tombstone(_)))), "{end:?}");
    home.restored.now += TOMBSTONE_S;
    home.take(home.restored.registry.purge(home.restored.now));
    assert!(home.restored.registry.node(stray).is_none());
}

#[test]
fn stray_that_tells_of_an_older_assignment_keeps_the_newer_one() {
    let mut home = Home::new();
    let stray = join(&mut home.later, 9);
    let old = home.assignment(stray);
    let_in(&mut home, stray, 40);
    home.tell_all(stray);
    assert_ne!(home.assignment(stray).rev(), old.rev());
    assert_eq!(home.tell(stray, &old).len(), 0);
    let new = home.assignment(stray);
    assert_eq!(home.tell(stray, &new).len(), 0);
}

fn deny_by_default(world: &mut World) {
    let net = world.registry.networks().next().unwrap().id.to_string();
    let patch = NetworkPatch { access: Some(Verdict::Deny), dns: None };
    let (rows, _) = world.registry.change_network(&net, &patch).unwrap();
    take(world, rows);
}

#[test]
fn what_was_closed_after_the_backup_opens_only_when_an_admin_accepts_it() {
    let mut home = Home::new();
    let [office, flat] = home.nodes;
    deny_by_default(&mut home.later);
    let told = home.assignment(office);
    home.tell(office, &told);
    assert_eq!(home.access(office).default, Verdict::Deny, "as it was told");
    assert_eq!(home.access(flat).default, Verdict::Allow, "it has not told yet");
    assert!(home.findings()[0].contains("denied more"), "{:?}", home.findings());
    let stricter = records::stricter_rules(&home.restored.registry);
    assert_eq!(stricter.iter().map(|(node, _)| node.id).collect::<Vec<_>>(), [office]);

    // What the admin closes meanwhile is closed as well.
    let accept = |home: &Home, node: &str| home.restored.registry.accept_rules(node);
    let missing = accept(&home, &flat.to_string()).unwrap_err();
    assert!(missing.advice().contains(&office.to_string()), "{}", missing.advice());
    let (rows, _) = accept(&home, &office.to_string()).unwrap();
    home.take(rows);
    assert_eq!(home.access(office), &Access::default());
    assert!(records::stricter_rules(&home.restored.registry).is_empty());
    assert!(accept(&home, &office.to_string()).is_err(), "once");
}

#[test]
fn rules_that_allowed_more_are_named_and_nothing_is_kept() {
    let mut home = Home::new();
    let office = home.nodes[0];
    let told = home.assignment(office).with_rev(90);
    deny_by_default(&mut home.restored);
    home.tell(office, &told);
    assert!(home.findings()[0].contains("allowed more"), "{:?}", home.findings());
    assert_eq!(home.access(office).default, Verdict::Deny);
    assert_eq!(home.restored.registry.kept_rules().count(), 0);
    let same = home.restored.published.content(&Topic::Assignment(office)).unwrap().clone();
    home.tell(office, &same);
    assert_eq!(home.findings().len(), 1, "the same rules are no finding");
}

#[test]
fn adopted_node_keeps_to_its_stricter_rules() {
    let mut home = Home::new();
    deny_by_default(&mut home.later);
    let stray = home.stray(9);
    let (rows, _) = home.restored.registry.adopt_stray(&stray.to_string(), None, &home.moment()).unwrap();
    home.take(rows);
    assert_eq!(home.access(stray).default, Verdict::Deny);
    assert_eq!(records::stricter_rules(&home.restored.registry).len(), 1);
}

#[test]
fn lowered_revision_is_published_as_if_it_was_never_raised() {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    let topics = all_topics(&world.registry, &world.published);
    let topic = *topics.first().unwrap();
    let plan = |published: &PublishedRecords| published.plan(&world.registry, 0, &topics);
    let rev = |changes: Vec<crate::records::Change>| {
        changes.first().map(|(_, content)| content.as_ref().unwrap().rev())
    };
    let before = world.published.raise(topic, 20);
    assert_eq!((before, rev(plan(&world.published))), (None, Some(21)));
    let raised = world.published.raise(topic, 30);
    assert_eq!((raised, rev(plan(&world.published))), (Some(20), Some(31)));
    world.published.lower(&topic, raised);
    assert_eq!(rev(plan(&world.published)), Some(21));
    world.published.lower(&topic, before);
    assert_eq!(plan(&world.published), []);
}

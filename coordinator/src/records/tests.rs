use super::*;
use crate::{
    registry::TOMBSTONE_S,
    store::{Signed, Store},
    testing::{ExitOp, Op, World, any_op},
};
use proptest::prelude::*;

/// All of a record but its revision.
fn body(content: &Content) -> Content {
    content.clone().with_rev(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn revision_with_changed_content_grows_by_one_and_never_otherwise(
        ops in proptest::collection::vec(any_op(), 1..80)
    ) {
        let mut world = World::default();
        for op in &ops {
            let before = world.published.clone();
            let step = world.step(op);
            for (topic, now) in world.published.iter() {
                match before.content(topic) {
                    None => prop_assert_eq!(now.rev(), 1),
                    Some(then) if body(then) == body(now) => prop_assert_eq!(now.rev(), then.rev()),
                    Some(then) => prop_assert_eq!(now.rev(), then.rev() + 1, "{:?}", op),
                }
            }
            for (topic, content) in &step.records {
                prop_assert_ne!(before.content(topic), content.as_ref(), "only what changes is published");
            }
        }
    }

    #[test]
    fn touched_topics_of_any_change_include_all_changed_records(ops in proptest::collection::vec(any_op(), 1..60)) {
        let mut world = World::default();
        for op in &ops {
            world.step(op);
            let all = all_topics(&world.registry, &world.published);
            let missed = world.published.plan(&world.registry, world.now, &all);
            // Time alone takes tombstones away, once an hour: nothing else is left to do.
            let expired = |change: &Change| matches!(change, (Topic::Member(..), None));
            prop_assert!(missed.iter().all(expired), "{:?} left {:?}", op, missed);
            world.published.apply(missed);
        }
    }

    #[test]
    fn roster_after_member_changes_is_published_last_and_lists_them(ops in proptest::collection::vec(any_op(), 1..60)) {
        let mut world = World::default();
        for op in &ops {
            let step = world.step(op);
            let is_roster = |(topic, _): &Change| matches!(topic, Topic::Roster(_));
            prop_assert!(step.records.is_sorted_by_key(is_roster));
            for network in world.registry.networks() {
                let Some(Content::Roster(roster)) = world.published.content(&Topic::Roster(network.id)) else {
                    return Err(TestCaseError::fail("a network has a roster"));
                };
                let rev = |node: &Node| world.published.content(&Topic::Member(node.net, node.id)).map(Content::rev);
                let members = world.registry.live_nodes(network.id);
                let members: BTreeMap<_, _> = members.filter_map(|node| Some((node.id, rev(node)?))).collect();
                prop_assert!(roster.describes(&members));
            }
        }
    }
}

proptest! {
    #[test]
    fn changes_between_records_lead_from_one_to_the_other(ops in proptest::collection::vec(any_op(), 1..40), at in 0_usize..40) {
        let (mut world, mut before) = (World::default(), PublishedRecords::default());
        for (number, op) in ops.iter().enumerate() {
            world.step(op);
            if number == at {
                before = world.published.clone();
            }
        }
        let changes = before.changes_to(&world.published);
        let first_roster = changes.iter().position(|(topic, _)| matches!(topic, Topic::Roster(_)));
        let after = first_roster.map_or(&[][..], |first| &changes[first..]);
        prop_assert!(after.iter().all(|(topic, _)| matches!(topic, Topic::Roster(_))), "rosters come last");
        before.apply(changes);
        prop_assert_eq!(before, world.published);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn stored_records_are_loaded_unchanged(ops in proptest::collection::vec(any_op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("odd name %?#.db");
            std::fs::write(&path, "").unwrap();
            let signer = Signer::from_seed(&[1; 32]);
            let mut world = World::default();
            let mut store = Store::open(&path, true).await.unwrap();
            for (number, op) in ops.iter().enumerate() {
                let step = world.step(op);
                let sign = |(topic, content): &Change| Signed {
                    topic: *topic,
                    record: content.as_ref().map(|content| (content.rev(), content.sign(&signer).unwrap())),
                };
                let signed: Vec<_> = step.records.iter().map(sign).collect();
                store.commit(&step.rows, &signed).await.unwrap();
                if number % 8 == 7 {
                    store.close().await;
                    store = Store::open(&path, false).await.unwrap();
                }
            }
            let loaded = store.load(&signer.public()).await.unwrap();
            prop_assert_eq!(&loaded.registry, &world.registry);
            prop_assert_eq!(&loaded.published, &world.published);
            let foreign = Signer::from_seed(&[2; 32]).public();
            let empty = world.published.iter().next().is_none();
            prop_assert_eq!(store.load(&foreign).await.is_ok(), empty, "records of another key are not believed");
            store.close().await;
            Ok(())
        })?;
    }
}

/// A network with two nodes, the first of which lets clients in.
fn ingress() -> World {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    world.step(&Op::CreateCode(0, 3));
    for key in [1, 2] {
        world.step(&Op::Join { code: 0, key, name: key, endpoint: key });
    }
    assert!(world.step(&Op::SetIngress { node: 0, endpoint: true }).refused.is_none());
    world
}

fn add(world: &mut World, key: u8, name: &str, prefixes: &[&str]) -> Vec<Topic> {
    let gateway = world.registry.nodes().find(|node| node.ingress.is_some()).unwrap().name.clone();
    let network = world.registry.networks().next().unwrap().name.to_string();
    let spec = crate::registry::ClientSpec {
        prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
        ..crate::testing::client_spec(name, vec![gateway])
    };
    let (now, entropy) = (world.now, [key; 32]);
    let moment = crate::registry::Moment { now, entropy };
    let keys = crate::testing::keys(key);
    let (rows, _) = world.registry.create_client(&network, &spec, &keys, &moment).unwrap();
    let undo = world.registry.apply(rows.clone());
    let changes = world.published.plan(&world.registry, now, &touched(&world.registry, &rows, &undo));
    world.published.apply(changes.clone());
    changes.into_iter().map(|(topic, _)| topic).collect()
}

#[test]
fn client_change_affects_its_gateway_only() {
    let mut world = ingress();
    let gateway = world.registry.nodes().find(|node| node.ingress.is_some()).unwrap().id;
    for number in 0..200 {
        let changed = add(&mut world, number + 10, &format!("phone-{number}"), &[]);
        assert_eq!(changed, [Topic::Assignment(gateway)]);
    }
    let site = add(&mut world, 211, "van", &["192.168.77.0/24"]);
    assert!(matches!(site[..], [Topic::Member(..), Topic::Assignment(_), Topic::Roster(_)]), "{site:?}");
}

#[test]
fn assignment_with_full_client_block_fits_the_size_limit() {
    let mut world = ingress();
    for number in 0..240 {
        add(&mut world, number + 10, &format!("phone-{number}"), &[]);
    }
    let gateway = world.registry.nodes().find(|node| node.ingress.is_some()).unwrap().id;
    let Some(Content::Assignment(mut assignment)) =
        world.published.content(&Topic::Assignment(gateway)).cloned()
    else {
        panic!("no assignment")
    };
    let clients = &mut assignment.ingress.as_mut().unwrap().clients;
    assert!(clients.iter().all(|client| client.psk.is_some() && client.addresses.len() == 2));
    let more = clients[..14].to_vec();
    clients.extend(more);
    assert_eq!(clients.len(), 254);
    let signed = Content::Assignment(assignment).sign(&Signer::from_seed(&[1; 32])).unwrap();
    assert!(signed.len() < gatewrt_protocol::MAX_ASSIGNMENT * 2 / 3, "{} bytes", signed.len());
    println!("254 clients: {} bytes", signed.len());
}

#[test]
fn disabled_or_expired_client_is_not_admitted() {
    let mut world = ingress();
    add(&mut world, 30, "van", &["192.168.77.0/24"]);
    let gateway = world.registry.nodes().find(|node| node.ingress.is_some()).unwrap().clone();
    let seen = |world: &World| {
        let Some(Content::Assignment(assignment)) = world.published.content(&Topic::Assignment(gateway.id))
        else {
            panic!("no assignment")
        };
        let Some(Content::Member(MemberUpdate::Member(member))) =
            world.published.content(&Topic::Member(gateway.net, gateway.id))
        else {
            panic!("no member")
        };
        assert_eq!(member.clients.len(), 2);
        (assignment.ingress.as_ref().unwrap().clients.len(), member.prefixes.len())
    };
    assert_eq!(seen(&world), (1, 1));
    let change = |enabled, expires| Op::ChangeClient { client: 0, enabled, prefix: Some(2), expires };
    world.step(&change(false, None));
    assert_eq!(seen(&world), (0, 0));
    world.step(&change(true, Some(60)));
    assert_eq!(seen(&world), (1, 1));
    world.step(&Op::Wait(59));
    assert_eq!(seen(&world), (1, 1));
    world.step(&Op::Wait(1));
    assert_eq!(seen(&world), (0, 0));
    world.step(&change(true, None));
    assert_eq!(seen(&world), (1, 1));
    world.step(&Op::UnsetIngress(0, true));
    let topic = Topic::Assignment(gateway.id);
    assert!(matches!(world.published.content(&topic), Some(Content::Assignment(a)) if a.ingress.is_none()));
    assert!(world.step(&Op::SetIngress { node: 0, endpoint: true }).refused.is_none());
    assert_eq!(seen(&world), (1, 1), "the same blocks, and so the same clients");
}

#[test]
fn withdrawn_tombstone_stays_so_when_the_clock_goes_back() {
    let mut world = World::default();
    for op in [
        Op::CreateNetwork(0, None),
        Op::CreateCode(0, 2),
        Op::Join { code: 0, key: 1, name: 0, endpoint: 0 },
        Op::Remove(0, false),
    ] {
        world.step(&op);
    }
    let topics = all_topics(&world.registry, &world.published);
    let over = world.published.plan(&world.registry, world.now + TOMBSTONE_S, &topics);
    assert!(matches!(over.first(), Some((Topic::Member(..), None))), "{over:?}");
    world.published.apply(over);
    assert_eq!(world.published.plan(&world.registry, world.now, &topics), []);
}

#[test]
fn nat_change_affects_only_the_nodes_assignment() {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    world.step(&Op::CreateCode(0, 2));
    world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 0 });
    let topics = |world: &mut World, op| -> Vec<Topic> {
        world.step(&op).records.into_iter().map(|(topic, _)| topic).collect()
    };
    let set = topics(&mut world, Op::SetEgress(0, 2, false));
    assert!(matches!(set[..], [Topic::Member(..), Topic::Assignment(_), Topic::Roster(_)]), "{set:?}");
    let nat = topics(&mut world, Op::SetEgress(0, 2, true));
    assert!(matches!(nat[..], [Topic::Assignment(_)]), "{nat:?}");
    assert_eq!(topics(&mut world, Op::SetEgress(0, 2, true)), []);
}

#[test]
fn tombstone_is_kept_for_thirty_days() {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    world.step(&Op::CreateCode(0, 2));
    let node = world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 0 }).joined.unwrap();
    world.step(&Op::Remove(0, false));
    let topic = Topic::Member(world.registry.node(node).unwrap().net, node);
    let stands =
        |world: &World| world.published.plan(&world.registry, world.now, &BTreeSet::from([topic])).is_empty();
    assert!(matches!(world.published.content(&topic), Some(Content::Member(MemberUpdate::Tombstone(_)))));
    world.now += TOMBSTONE_S - 1;
    assert!(stands(&world));
    world.now += 1;
    assert!(!stands(&world));
}

#[test]
fn member_record_with_two_prefixes_is_small() {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    world.step(&Op::CreateCode(0, 2));
    let node = world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 0 }).joined.unwrap();
    world.step(&Op::SetEgress(0, 2, true));
    world.step(&Op::SetEgress(0, 6, true));
    let topic = Topic::Member(world.registry.node(node).unwrap().net, node);
    let signed = world.published.content(&topic).unwrap().sign(&Signer::from_seed(&[1; 32])).unwrap();
    assert!(signed.len() < 700, "{} bytes", signed.len());
}

/// Four nodes; the second and third are exits, and may be.
fn exits() -> World {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    world.step(&Op::CreateCode(0, 9));
    for key in 0..4 {
        assert!(world.step(&Op::Join { code: 0, key, name: key, endpoint: 1 }).joined.is_some());
    }
    for node in [1, 2] {
        world.step(&Op::Exit(ExitOp::Offer { node, v4: true, v6: false }));
        assert!(world.step(&Op::Exit(ExitOp::Set { node, v6: true })).refused.is_none());
    }
    world
}

fn published(world: &mut World, op: ExitOp) -> Vec<Topic> {
    let step = world.step(&Op::Exit(op));
    assert_eq!(step.refused, None);
    step.records.into_iter().map(|(topic, _)| topic).collect()
}

#[test]
fn scope_change_affects_its_node_only() {
    let mut world = exits();
    let client = world.registry.nodes().next().unwrap().id;
    let scope = |of, exits: &[u8]| ExitOp::Scope { node: 0, name: 0, of, exits: exits.to_vec() };
    for op in [
        scope(0, &[0]),
        scope(0, &[1]),
        scope(1, &[0, 1]),
        scope(1, &[]),
        ExitOp::Retry(0),
        ExitOp::DropScope { node: 0, name: 0 },
    ] {
        assert_eq!(published(&mut world, op.clone()), [Topic::Assignment(client)], "{op:?}");
    }
    published(&mut world, scope(0, &[0]));
    assert_eq!(published(&mut world, scope(0, &[0])), [], "the same again is no change");
    let Some(Content::Assignment(told)) = world.published.content(&Topic::Assignment(client)) else {
        panic!("no assignment")
    };
    assert_eq!((told.scopes.len(), told.attempt, told.exit.is_none()), (1, 1, true));
}

#[test]
fn exit_change_affects_its_member_record_and_assignment() {
    let mut world = exits();
    published(&mut world, ExitOp::Scope { node: 0, name: 0, of: 0, exits: vec![0] });
    let (net, exit) = world.registry.nodes().nth(1).map(|node| (node.net, node.id)).unwrap();
    let own = [Topic::Member(net, exit), Topic::Roster(net), Topic::Assignment(exit)];
    let sorted = |mut topics: Vec<Topic>| {
        topics.sort();
        topics
    };
    let own = sorted(own.to_vec());
    assert_eq!(sorted(published(&mut world, ExitOp::Unset(1, true))), own);
    assert_eq!(sorted(published(&mut world, ExitOp::Set { node: 1, v6: true })), own);
    // It has no IPv6: that more is wanted than it has is its own matter.
    assert_eq!(published(&mut world, ExitOp::Set { node: 1, v6: false }), [Topic::Assignment(exit)]);
    let offer = |v4, v6| ExitOp::Offer { node: 1, v4, v6 };
    assert_eq!(published(&mut world, offer(true, true)), [], "what it has more is not wanted");
    let member = [Topic::Member(net, exit), Topic::Roster(net)];
    assert_eq!(published(&mut world, offer(false, true)), member, "nothing of what is wanted is left");
    assert_eq!(published(&mut world, offer(false, true)), []);
}

#[test]
fn assignment_with_all_scopes_fits_the_size_limit() {
    let mut world = exits();
    let exits = world.registry.nodes().skip(1).take(2).map(|exit| exit.id.to_string()).collect();
    let spec = crate::registry::ScopeSpec {
        exits,
        exclude: (0..64).map(|n| format!("2001:db8:1234:{n:x}::/64").parse().unwrap()).collect(),
        dns: (1..9).map(|n| format!("2001:db8:ffff::{n}").parse().unwrap()).collect(),
        ..crate::testing::scope_spec("all")
    };
    for scope in 0..gatewrt_protocol::ExitScope::MOST {
        let of = (0..32).map(|n| format!("2001:db8:{scope:x}:{n:x}::/64")).collect();
        // It has not reported its LANs.
        let spec = crate::registry::ScopeSpec { of, ..spec.clone() };
        let node = world.registry.nodes().next().unwrap();
        let (net, id) = (node.net.to_string(), node.id.to_string());
        let rows = world.registry.set_scope(&net, &id, &format!("scope-{scope}"), &spec).unwrap().0;
        world.registry.apply(rows);
    }
    let node = world.registry.nodes().next().unwrap().id;
    let plan = world.published.plan(&world.registry, world.now, &[Topic::Assignment(node)].into());
    let [(_, Some(content))] = &plan[..] else { panic!("{plan:?}") };
    let signed = content.sign(&Signer::from_seed(&[1; 32])).unwrap();
    assert!(signed.len() < gatewrt_protocol::MAX_ASSIGNMENT, "{} bytes", signed.len());
    println!("16 scopes: {} bytes", signed.len());
}

use super::*;
use crate::testing::{Op, World, report};
use gatewrt_protocol::{Applied, Presence, Report, RolledBack};

/// Time of all looks, in seconds since 1970.
const NOW: u64 = 1_000_000;

/// Network with the nodes `node-0` and `node-1`, which are online.
struct Home {
    world: World,
    live: Live,
    net: NetworkId,
    nodes: [NodeId; 2],
    seq: u64,
}

impl Home {
    fn new() -> Self {
        let mut world = World::default();
        world.step(&Op::CreateNetwork(0, None));
        world.step(&Op::CreateCode(0, 3));
        let mut join = |name| {
            let step = world.step(&Op::Join { code: 0, key: name, name, endpoint: name });
            step.joined.unwrap_or_else(|| panic!("{:?}", step.refused))
        };
        let nodes = [join(0), join(1)];
        let net = world.registry.networks().next().unwrap().id;
        let mut home = Self { world, live: Live::default(), net, nodes, seq: 0 };
        nodes.iter().for_each(|node| home.connect(*node));
        home
    }

    fn connect(&mut self, node: NodeId) {
        self.live.handle_connected(node, Some("203.0.113.9:1".parse().unwrap()), NOW - 60);
        let presence = Presence { net: self.net, node, boot: "boot".into(), session: 1, online: true };
        self.live.handle_presence(node, presence).unwrap();
    }

    fn report(&mut self, node: NodeId, change: impl FnOnce(&mut Report)) {
        self.seq += 1;
        let mut said = Report { seq: self.seq, ..report(node, 1, 1) };
        change(&mut said);
        self.live.handle_report(node, said, NOW).unwrap();
    }

    fn publish(&mut self, topic: Topic, rev: u64) {
        let content = self.world.published.content(&topic).cloned();
        self.world
            .published
            .apply(content.map(|content| (topic, Some(content.with_rev(rev)))).into_iter().collect());
    }

    /// Expectation of records, which are published with these revisions.
    fn expected(&mut self, ordered: &[(Topic, Option<u64>)]) -> Expected {
        ordered.iter().for_each(|(topic, rev)| rev.iter().for_each(|rev| self.publish(*topic, *rev)));
        Expected::of(&self.world.registry, &self.live, &ordered.to_vec())
    }

    fn progress(&self, expected: &Expected) -> Progress {
        expected.progress(&self.world.registry, &self.world.published, &self.live, NOW)
    }

    /// Names of nodes that obey, and pending ones with their reasons; the last is true if one may obey any moment.
    fn seen(&self, expected: &Expected) -> (Vec<String>, Vec<String>, bool) {
        let Progress { obeyed, is_open } = self.progress(expected);
        let pending = obeyed.pending.iter().map(|pending| format!("{}: {}", pending.node, pending.why));
        (obeyed.applied.iter().map(ToString::to_string).collect(), pending.collect(), is_open)
    }
}

fn failure(what: &str) -> Failure {
    Failure { what: what.into(), why: "no".into() }
}

fn seen(applied: &[&str], pending: &[&str], is_open: bool) -> (Vec<String>, Vec<String>, bool) {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    (texts(applied), texts(pending), is_open)
}

#[test]
fn node_obeys_once_its_report_names_the_revision_or_a_later_one() {
    let mut home = Home::new();
    let [one, _] = home.nodes;
    home.report(one, |report| report.applied.assignment = 4);
    let expected = home.expected(&[(Topic::Assignment(one), Some(5))]);
    assert_eq!(home.seen(&expected), seen(&[], &["node-0: has not confirmed it yet"], true));
    home.publish(Topic::Assignment(one), 6);
    for rev in [5, 6] {
        home.report(one, |report| report.applied.assignment = rev);
        assert_eq!(home.seen(&expected), seen(&["node-0"], &[], false));
    }
}

#[test]
fn node_with_a_revision_of_before_a_setback_does_not_obey() {
    let mut home = Home::new();
    let [one, _] = home.nodes;
    let expected = home.expected(&[(Topic::Assignment(one), Some(5))]);
    home.report(one, |report| report.applied = Applied { policy: 90, assignment: 5, roster: 90 });
    assert_eq!(home.seen(&expected).0, ["node-0"], "the change is about its assignment only");
    home.report(one, |report| report.applied.assignment = 50);
    let ahead = "node-0: has newer settings than the coordinator, which was set back";
    assert_eq!(home.seen(&expected), seen(&[], &[ahead], true));
    // Brought up to date, the coordinator publishes it above that.
    home.publish(Topic::Assignment(one), 51);
    home.report(one, |report| report.applied.assignment = 51);
    assert_eq!(home.seen(&expected), seen(&["node-0"], &[], false));
}

#[test]
fn policy_and_roster_concern_all_nodes_and_other_records_none() {
    let mut home = Home::new();
    let [one, two] = home.nodes;
    for topic in [Topic::Policy(home.net), Topic::Roster(home.net)] {
        let expected = home.expected(&[(topic, Some(3))]);
        home.report(one, |report| report.applied = Applied { policy: 3, assignment: 0, roster: 3 });
        home.report(two, |report| report.applied = Applied { policy: 2, assignment: 9, roster: 2 });
        assert_eq!(home.seen(&expected), seen(&["node-0"], &["node-1: has not confirmed it yet"], true));
    }
    let others = [Topic::Member(home.net, one), Topic::Report(one)].map(|topic| (topic, Some(1)));
    assert!(home.expected(&others).is_empty());
    assert!(home.expected(&[]).is_empty());
}

#[test]
fn removed_node_obeys_once_it_has_read_its_tombstone() {
    let mut home = Home::new();
    let [one, _] = home.nodes;
    let place = home.world.registry.nodes().position(|node| node.id == one).unwrap();
    assert!(home.world.step(&Op::Remove(u8::try_from(place).unwrap(), true)).refused.is_none());
    home.live.handle_removed(one);
    let expected = home.expected(&[(Topic::Member(home.net, one), Some(2))]);
    assert_eq!(home.seen(&expected), seen(&[], &["node-0: has not read yet that it is removed"], true));
    home.live.handle_disconnected(one, NOW - 7200);
    let offline = "node-0: offline since 2 h; it goes on with others that have not heard of its removal, until it reads \
                   of it when it is back";
    assert_eq!(home.seen(&expected), seen(&[], &[offline], false));
    home.world.registry.apply(home.world.registry.note_told(one, NOW));
    assert_eq!(home.seen(&expected), seen(&["node-0"], &[], false));
}

#[test]
fn removed_node_is_asked_for_nothing_else_and_one_removed_meanwhile_is_left_out() {
    let mut home = Home::new();
    let [one, two] = home.nodes;
    let expected = home.expected(&[(Topic::Roster(home.net), Some(3))]);
    home.report(two, |report| report.applied.roster = 3);
    assert_eq!(home.seen(&expected).1.len(), 1);
    let place = home.world.registry.nodes().position(|node| node.id == one).unwrap();
    assert!(home.world.step(&Op::Remove(u8::try_from(place).unwrap(), true)).refused.is_none());
    assert_eq!(home.seen(&expected), seen(&["node-1"], &[], false));
    let expected = home.expected(&[(Topic::Assignment(one), Some(5)), (Topic::Roster(home.net), Some(4))]);
    assert_eq!(home.seen(&expected), seen(&[], &["node-1: has not confirmed it yet"], true));
}

#[test]
fn offline_or_silent_node_is_named_and_not_waited_for() {
    let mut home = Home::new();
    let [one, two] = home.nodes;
    let expected = home.expected(&[(Topic::Policy(home.net), Some(3))]);
    home.live.handle_disconnected(one, NOW - 7200);
    let silent = "node-1: has not reported yet";
    assert_eq!(
        home.seen(&expected),
        seen(&[], &["node-0: offline since 2 h; it obeys when it is back", silent], false)
    );
    home.live.forget(one);
    assert_eq!(
        home.seen(&expected),
        seen(&[], &["node-0: not connected; it obeys when it is back", silent], false)
    );
    home.report(two, |report| report.applied.policy = 3);
    home.live.handle_disconnected(two, NOW);
    assert_eq!(home.seen(&expected).0, ["node-1"], "it has confirmed before it went");
}

#[test]
fn refusal_and_rollback_are_named() {
    let mut home = Home::new();
    let [one, _] = home.nodes;
    let expected = home.expected(&[(Topic::Assignment(one), Some(5))]);
    home.report(one, |report| report.failures = vec![failure("take in the settings of this node")]);
    let refuses = "node-0: could not take in the settings of this node: no";
    assert_eq!(home.seen(&expected), seen(&[], &[refuses], true));
    let back = |assignment| Some(RolledBack { assignment, why: "the link was lost".into() });
    home.report(one, |report| {
        report.applied.assignment = 5;
        report.rolled_back = back(5);
    });
    assert_eq!(home.seen(&expected), seen(&[], &["node-0: rolled it back: the link was lost"], false));
    home.report(one, |report| {
        report.applied.assignment = 5;
        report.rolled_back = back(4);
    });
    assert_eq!(home.seen(&expected), seen(&["node-0"], &[], false), "that was an earlier change");
}

#[test]
fn only_a_new_failure_speaks_against_a_revision_in_effect() {
    let mut home = Home::new();
    let [one, _] = home.nodes;
    home.report(one, |report| report.failures = vec![failure("read the kernel")]);
    let expected = home.expected(&[(Topic::Assignment(one), Some(5))]);
    home.report(one, |report| {
        report.applied.assignment = 5;
        report.failures = vec![failure("read the kernel"), failure("serve 10.0.0.0/8")];
    });
    assert_eq!(home.seen(&expected), seen(&[], &["node-0: could not serve 10.0.0.0/8: no"], false));
    home.report(one, |report| {
        report.applied.assignment = 5;
        report.failures = vec![failure("read the kernel")];
    });
    assert_eq!(home.seen(&expected), seen(&["node-0"], &[], false));
}

#[test]
fn record_that_is_held_back_waits_for_the_first_report() {
    let mut home = Home::new();
    let [one, _] = home.nodes;
    let recovery = crate::registry::Recovery { waiting: Some([one].into()), ..Default::default() };
    home.world.registry.apply(vec![crate::registry::Row::Recovery(Some(recovery))]);
    home.report(one, |report| report.applied.assignment = 0);
    let expected = home.expected(&[(Topic::Assignment(one), None)]);
    let waits = "node-0: waits for its first report since the coordinator was set back";
    assert_eq!(home.seen(&expected), seen(&[], &[waits], false));
    // Heard, it is sent what was held back.
    home.world.registry.apply(home.world.registry.handle_heard(one));
    assert_eq!(home.seen(&expected), seen(&[], &["node-0: has not confirmed it yet"], true));
    let rev = home.world.published.content(&Topic::Assignment(one)).unwrap().rev();
    home.report(one, |report| report.applied.assignment = rev);
    assert_eq!(home.seen(&expected), seen(&["node-0"], &[], false));
}

#[test]
fn time_offline_is_said_in_one_unit() {
    for (seconds, text) in
        [(0, "0 s"), (119, "119 s"), (120, "2 min"), (5400, "1 h"), (7200, "2 h"), (172_800, "2 days")]
    {
        assert_eq!(span(seconds), text);
    }
}

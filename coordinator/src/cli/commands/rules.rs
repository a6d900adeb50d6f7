//! Commands `rule`, `group`, `tag`, `check` and `network set`.

use super::{
    super::{
        args::{CheckCommand, GroupCommand, OneRule, RuleCommand, TagCommand, Tagged},
        client::{ApiClient, CommandError},
    },
    CommandResult, enc, line, list, print, stack, stacked_table, warn, word,
};
use crate::{
    api::{CheckAnswer, GroupSpec, GroupView, NetworkPatch, NetworkView, RulePatch, RuleSpec, RuleView},
    obeyed::Changed,
};
use gatewrt_protocol::{Problem, Tag, Verdict};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

pub(super) fn set_network(
    client: &ApiClient,
    network: &str,
    patch: &NetworkPatch,
    as_json: bool,
) -> CommandResult {
    let changed: Changed<NetworkView> = client.patch(&format!("networks/{}", enc(network)), patch)?;
    print(&changed, as_json, |changed| {
        let access = if changed.access == Verdict::Allow { "allowed" } else { "denied" };
        line(&format!(
            "network {}: connections that match no rule are {access}; DNS {}",
            changed.name,
            list(&changed.dns)
        ))
    })
}

pub(super) fn run_rule(client: &ApiClient, command: RuleCommand, as_json: bool) -> CommandResult {
    match command {
        RuleCommand::Add { network, verdict, from, to, service, note, disabled } => {
            let verdict = verdict.into();
            let spec = RuleSpec { verdict, from, to, services: service, enabled: !disabled, note };
            let made: Changed<RuleView> = client.post(&format!("networks/{}/rules", enc(&network)), &spec)?;
            print(&made, as_json, |made| print_rule("created", made))
        }
        RuleCommand::List { network } => {
            let all: Vec<RuleView> = client.list(&format!("networks/{}/rules", enc(&network)))?;
            print(&all, as_json, |all| rule_table(all))
        }
        RuleCommand::Show(one) => {
            let shown: RuleView = client.get(&rule_path(&one))?;
            print(&shown, as_json, |shown| rule_table(std::slice::from_ref(shown)))
        }
        RuleCommand::Enable(one) => switch(client, &one, true, as_json),
        RuleCommand::Disable(one) => switch(client, &one, false, as_json),
        RuleCommand::Delete(one) => {
            let gone: Changed<RuleView> = client.delete(&rule_path(&one))?;
            print(&gone, as_json, |gone| line(&format!("deleted rule {}", gone.id)))
        }
    }
}

fn rule_path(one: &OneRule) -> String {
    format!("networks/{}/rules/{}", enc(&one.network), enc(&one.rule))
}

fn switch(client: &ApiClient, one: &OneRule, enabled: bool, as_json: bool) -> CommandResult {
    let patch = RulePatch { enabled: Some(enabled), ..RulePatch::default() };
    let changed: Changed<RuleView> = client.patch(&rule_path(one), &patch)?;
    print(&changed, as_json, |changed| print_rule(if enabled { "enabled" } else { "disabled" }, changed))
}

fn print_rule(what: &str, rule: &RuleView) -> io::Result<()> {
    let services = if rule.services.is_empty() { "everything".to_owned() } else { list(&rule.services) };
    let (from, to) = (list(&rule.from), list(&rule.to));
    line(&format!("{what} rule {}: {} {from} → {to}, {services}", rule.id, word(&rule.verdict)))?;
    warn(&rule.warnings);
    Ok(())
}

fn rule_table(rules: &[RuleView]) -> io::Result<()> {
    let row = |rule: &RuleView| {
        let services = if rule.services.is_empty() { stack(["everything"]) } else { stack(&rule.services) };
        vec![
            stack([rule.id]),
            stack([word(&rule.verdict)]),
            stack(&rule.from),
            stack(&rule.to),
            services,
            stack([if rule.enabled { "on" } else { "off" }]),
            stack([&rule.note]),
        ]
    };
    let heading = ["RULE", "VERDICT", "FROM", "TO", "SERVICES", "STATE", "NOTE"];
    stacked_table(&heading, &rules.iter().map(row).collect::<Vec<_>>())?;
    for rule in rules {
        warn(&rule.warnings.iter().map(|warning| format!("rule {}: {warning}", rule.id)).collect::<Vec<_>>());
    }
    Ok(())
}

pub(super) fn run_group(client: &ApiClient, command: GroupCommand, as_json: bool) -> CommandResult {
    let path = |network: &str, group: &str| format!("networks/{}/groups/{}", enc(network), enc(group));
    match command {
        GroupCommand::Set { network, group, members } => {
            let set: Changed<GroupView> = client.put(&path(&network, &group), &GroupSpec { members })?;
            print(&set, as_json, |set| {
                line(&format!("group {}: {}", set.name, list(&set.members)))?;
                warn(&set.warnings);
                Ok(())
            })
        }
        GroupCommand::List { network } => {
            let all: Vec<GroupView> = client.list(&format!("networks/{}/groups", enc(&network)))?;
            print(&all, as_json, |all| group_table(all))
        }
        GroupCommand::Delete { network, group } => {
            let gone: Changed<GroupView> = client.delete(&path(&network, &group))?;
            print(&gone, as_json, |gone| line(&format!("deleted group {}", gone.name)))
        }
    }
}

fn group_table(groups: &[GroupView]) -> io::Result<()> {
    let row = |group: &GroupView| vec![stack([&group.name]), stack(&group.members), stack(&group.used_by)];
    stacked_table(&["GROUP", "MEMBERS", "USED BY"], &groups.iter().map(row).collect::<Vec<_>>())?;
    groups.iter().for_each(|group| warn(&group.warnings));
    Ok(())
}

/// Name and tags of a node or a client, as far as the `tag` commands read them.
#[derive(Debug, Serialize, Deserialize)]
struct Marked {
    name: String,
    #[serde(default)]
    tags: BTreeSet<Tag>,
}

#[derive(Serialize)]
struct Tags {
    tags: BTreeSet<Tag>,
}

pub(super) fn run_tag(client: &ApiClient, command: TagCommand, as_json: bool) -> CommandResult {
    match command {
        TagCommand::Add(tagged) => change_tags(client, &tagged, true, as_json),
        TagCommand::Remove(tagged) => change_tags(client, &tagged, false, as_json),
        TagCommand::List { network } => {
            let mut tags: BTreeMap<Tag, Vec<String>> = BTreeMap::new();
            for (kind, all) in [("node", "nodes"), ("client", "clients")] {
                let marked: Vec<Marked> = client.list(&format!("networks/{}/{all}", enc(&network)))?;
                for marked in marked {
                    let what = format!("{kind}:{}", marked.name);
                    marked.tags.into_iter().for_each(|tag| tags.entry(tag).or_default().push(what.clone()));
                }
            }
            print(&tags, as_json, |tags| {
                let rows: Vec<_> = tags.iter().map(|(tag, what)| vec![stack([tag]), stack(what)]).collect();
                stacked_table(&["TAG", "ON"], &rows)
            })
        }
    }
}

fn change_tags(client: &ApiClient, tagged: &Tagged, add: bool, as_json: bool) -> CommandResult {
    let (path, seen, marked) = find(client, &tagged.network, &tagged.what)?;
    let mut tags = marked.tags;
    if add {
        tags.extend(tagged.tags.iter().cloned());
    } else {
        tags.retain(|tag| !tagged.tags.contains(tag));
    }
    let changed: Changed<Marked> = client.patch_seen(&path, &Tags { tags }, &seen)?;
    print(&changed, as_json, |changed| {
        line(&format!("{} has the tags {}", changed.name, list(&changed.tags)))
    })
}

/// Finds a node or a client by its name: its path in the API, its entity tag, and its tags.
fn find(client: &ApiClient, network: &str, what: &str) -> Result<(String, String, Marked), CommandError> {
    let at = |all: &str, name: &str| {
        let path = format!("networks/{}/{all}/{}", enc(network), enc(name));
        client.get_seen::<Marked>(&path).map(|(marked, seen)| (path, seen, marked))
    };
    match what.split_once(':') {
        Some(("node", name)) => at("nodes", name),
        Some(("client", name)) => at("clients", name),
        _ => match (at("nodes", what), at("clients", what)) {
            (Ok(_), Ok(_)) => Err(CommandError::Refused(Problem {
                status: 409,
                kind: "ambiguous".into(),
                title: format!("a node and a client have the name “{what}”"),
                detail: format!("say node:{what} or client:{what}"),
            })),
            (Ok(node), Err(_)) => Ok(node),
            (Err(_), Ok(external)) => Ok(external),
            (Err(error), Err(_)) => Err(error),
        },
    }
}

pub(super) fn check(client: &ApiClient, check: &CheckCommand, as_json: bool) -> CommandResult {
    let service = check.service.map(|service| format!("&service={}", enc(&service.to_string())));
    let (from, to) = (enc(&check.from), enc(&check.to));
    let query = format!("from={from}&to={to}{}", service.unwrap_or_default());
    let answer: CheckAnswer = client.get(&format!("networks/{}/check?{query}", enc(&check.network)))?;
    print(&answer, as_json, |answer| {
        line(&format!("{}: {}", if answer.allowed { "allowed" } else { "not allowed" }, answer.why))?;
        answer.steps.iter().try_for_each(|step| line(&format!("  {step}")))
    })?;
    if answer.allowed { Ok(()) } else { Err(CommandError::NotAllowed) }
}

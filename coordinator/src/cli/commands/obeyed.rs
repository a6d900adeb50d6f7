//! Routers that have not confirmed a change, after the command that made it.

use super::{ApiClient, CommandError, CommandResult, list};
use crate::{cli::output::harmless, obeyed::Obeyed};
use gatewrt_protocol::NodeName;
use std::collections::BTreeMap;

/// Prints who has not confirmed the changes that were made, to stderr, unless the JSON on stdout has it. With `is_firm`
/// that is an error.
pub(in crate::cli) fn print_obeyed(client: &ApiClient, is_firm: bool, as_json: bool) -> CommandResult {
    let pending = lines(&client.obeyed());
    if !as_json {
        pending.iter().for_each(|line| eprintln!("{}", harmless(line)));
    }
    if is_firm && !pending.is_empty() { Err(CommandError::Pending) } else { Ok(()) }
}

/// Lines about nodes that have not confirmed: one for each reason, and what the last answer says about a node.
fn lines(answers: &[Obeyed]) -> Vec<String> {
    let mut last: BTreeMap<&NodeName, &str> = BTreeMap::new();
    for answer in answers {
        last.retain(|node, _| !answer.applied.contains(node));
        last.extend(answer.pending.iter().map(|pending| (&pending.node, &*pending.why)));
    }
    let mut reasons: BTreeMap<&str, Vec<&NodeName>> = BTreeMap::new();
    last.into_iter().for_each(|(node, why)| reasons.entry(why).or_default().push(node));
    reasons.into_iter().map(|(why, nodes)| format!("not yet: {}: {why}", list(nodes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::obeyed::PendingNode;

    fn answer(applied: &[&str], pending: &[(&str, &str)]) -> Obeyed {
        let pending = pending
            .iter()
            .map(|(node, why)| PendingNode { node: node.parse().unwrap(), why: (*why).to_owned() });
        let applied = applied.iter().map(|node| node.parse().unwrap());
        Obeyed { applied: applied.collect(), pending: pending.collect() }
    }

    #[test]
    fn nodes_with_the_same_reason_share_a_line() {
        let answers = [answer(&["shop"], &[("cabin", "offline"), ("flat", "no"), ("office", "offline")])];
        assert_eq!(lines(&answers), ["not yet: flat: no", "not yet: cabin, office: offline"]);
        assert_eq!(lines(&[answer(&["shop"], &[])]), Vec::<String>::new());
    }

    #[test]
    fn last_answer_about_a_node_holds() {
        let answers =
            [answer(&[], &[("cabin", "busy"), ("flat", "no")]), answer(&["cabin"], &[("flat", "yet")])];
        assert_eq!(lines(&answers), ["not yet: flat: yet"]);
    }
}

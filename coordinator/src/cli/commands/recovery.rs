//! Commands `recovery …`.

use super::{super::args::RecoveryCommand, ApiClient, CommandResult, enc, line, list, print, span, table};
use crate::{
    api::{AdoptRequest, KeptRulesView, RecoveryView, StrayView},
    controller::now,
    obeyed::Changed,
};
use std::io;

pub(super) fn run(client: &ApiClient, command: RecoveryCommand, as_json: bool) -> CommandResult {
    match command {
        RecoveryCommand::Show => print(&client.get::<RecoveryView>("recovery")?, as_json, show),
        RecoveryCommand::Adopt { stray, name } => {
            let path = format!("recovery/strays/{}", enc(&stray));
            let adopted: Changed<StrayView> = client.post(&path, &AdoptRequest { name })?;
            print(&adopted, as_json, |adopted| line(&format!("adopted {}", named(adopted))))
        }
        RecoveryCommand::AcceptRules { node } => {
            let path = format!("recovery/rules/{}", enc(&node));
            let accepted: Changed<KeptRulesView> = client.delete(&path)?;
            print(&accepted, as_json, |accepted| {
                line(&format!(
                    "{} of network {} goes by the access rules of this coordinator alone",
                    accepted.node, accepted.network
                ))
            })
        }
        RecoveryCommand::CutOff { stray } => {
            let gone: Changed<StrayView> = client.delete(&format!("recovery/strays/{}", enc(&stray)))?;
            print(&gone, as_json, |gone| line(&format!("cut off {}", named(gone))))
        }
    }
}

fn named(stray: &StrayView) -> String {
    let name = stray.name.as_ref().map_or_else(|| stray.id.clone(), |name| format!("{name} ({})", stray.id));
    format!("{} {name} of network {}", stray.what, stray.network)
}

fn show(recovery: &RecoveryView) -> io::Result<()> {
    let Some(summary) = &recovery.summary else {
        return line("the coordinator was never set back: it knows all that its routers know");
    };
    line(summary)?;
    let now = now();
    for finding in &recovery.findings {
        line(&format!("{} ago: {}", span(now.saturating_sub(finding.at)), finding.what))?;
    }
    if !recovery.waiting.is_empty() {
        line(&format!(
            "not heard of since: {}; what was changed for them reaches them when they report",
            list(&recovery.waiting)
        ))?;
    }
    recovery.rules.iter().try_for_each(show_rules)?;
    if recovery.strays.is_empty() {
        return Ok(());
    }
    let row = |stray: &StrayView| {
        vec![
            stray.what.clone(),
            stray.id.clone(),
            list(&stray.name),
            stray.network.clone(),
            list(&stray.gateway),
            list(&stray.addresses),
            if stray.adoptable { "yes" } else { "not now" }.to_owned(),
        ]
    };
    let heading = ["NOT KNOWN", "ID", "NAME", "NETWORK", "GATEWAY", "ADDRESSES", "CAN BE ADOPTED"];
    table(&heading, &recovery.strays.iter().map(row).collect::<Vec<_>>())?;
    line("next: gatewrt-coordinator recovery adopt ID, or recovery cut-off ID")
}

fn show_rules(kept: &KeptRulesView) -> io::Result<()> {
    line(&format!(
        "router {} of network {} had stricter access rules than the backup, and keeps to both sets:",
        kept.node, kept.network
    ))?;
    kept.rules.iter().try_for_each(|rule| line(&format!("  {rule}")))?;
    line(&format!("make them again, then: gatewrt-coordinator recovery accept-rules {}", kept.id))
}

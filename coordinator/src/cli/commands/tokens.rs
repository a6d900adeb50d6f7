//! Commands `token …` and `audit`.

use super::{
    super::args::{RightsArg, TokenCommand},
    ApiClient, CommandResult, enc, line, list, print, span, table, word,
};
use crate::{
    api::{AuditView, TokenView},
    clock::{date, now},
    obeyed::Changed,
    registry::{ADMIN_TOKEN_NAME, Rights, TokenSpec},
};

/// Steps to a new admin token.
const RESET_ADMIN: &str =
    "stop the coordinator, run “gatewrt-coordinator token reset-admin” on its machine, start it again";

pub(super) fn run(client: &ApiClient, command: TokenCommand, as_json: bool) -> CommandResult {
    match command {
        TokenCommand::Create { name, rights, network, expires } => {
            let expires_in = expires.map(|span| span.as_secs());
            let spec = TokenSpec { name, rights: rights.into(), network, expires_in };
            let made: Changed<TokenView> = client.post("tokens", &spec)?;
            print(&made, as_json, |made| {
                line(made.token.as_deref().unwrap_or_default())?;
                eprintln!("token {} ({}): it is shown only this once", made.name, made.id);
                Ok(())
            })
        }
        // This does not use the API.
        TokenCommand::ResetAdmin => Ok(()),
        TokenCommand::List => print(&client.list::<TokenView>("tokens")?, as_json, |all| token_table(all)),
        TokenCommand::Revoke { token } => {
            let gone: Changed<TokenView> = client.delete(&format!("tokens/{}", enc(&token)))?;
            print(&gone, as_json, |gone| {
                line(&format!("revoked token {} ({})", gone.name, gone.id))?;
                if gone.name == ADMIN_TOKEN_NAME {
                    eprintln!("its file has no effect any more; for a new one: {RESET_ADMIN}");
                }
                Ok(())
            })
        }
    }
}

impl From<RightsArg> for Rights {
    fn from(rights: RightsArg) -> Self {
        match rights {
            RightsArg::Read => Self::Read,
            RightsArg::Admin => Self::Admin,
        }
    }
}

fn token_table(all: &[TokenView]) -> std::io::Result<()> {
    let now = now();
    let left = |token: &TokenView| match token.expires {
        None => "-".to_owned(),
        Some(_) if !token.valid => "expired".to_owned(),
        Some(expires) => span(expires.saturating_sub(now)),
    };
    let network = |token: &TokenView| token.network.as_ref().map_or("all".to_owned(), ToString::to_string);
    let row = |token: &TokenView| {
        vec![token.name.clone(), token.id.clone(), word(&token.rights), network(token), left(token)]
    };
    table(&["TOKEN", "ID", "RIGHTS", "NETWORK", "EXPIRES IN"], &all.iter().map(row).collect::<Vec<_>>())
}

/// Prints the newest `last` entries of the audit log, newest first.
pub(super) fn audit(client: &ApiClient, network: Option<&str>, last: u32, as_json: bool) -> CommandResult {
    let of = network.map(|network| format!("&network={}", enc(network))).unwrap_or_default();
    let mut entries: Vec<AuditView> =
        client.list_up_to(&format!("audit?limit={}{of}", last.min(1000)), last as usize)?;
    entries.truncate(last as usize);
    print(&entries, as_json, |entries| {
        let row = |entry: &AuditView| {
            vec![
                date(entry.at),
                entry.who.clone(),
                entry.from.to_string(),
                list(&entry.network),
                entry.action.clone(),
                entry.target.clone(),
                entry.detail.clone(),
            ]
        };
        let heading = ["TIME", "WHO", "FROM", "NETWORK", "ACTION", "TARGET", "REQUEST"];
        table(&heading, &entries.iter().map(row).collect::<Vec<_>>())
    })
}

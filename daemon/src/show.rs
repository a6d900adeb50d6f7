//! Rendering of answers as text, for people or as JSON. The daemon renders, not the command line: that would need the
//! code to parse every type again.

mod answers;
pub mod checks;
pub mod exits;

pub use answers::{Answer, Done, Joined, PlanAnswer};

use crate::{
    core::{
        clients::ClientStatus,
        scopes::ConfigSource,
        status::{NetworkStatus, Status},
    },
    model::Short,
};
use gatewrt_protocol::{NetworkName, Path, Prefix};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

/// Selection and form of what an answer of the daemon shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Part of the state.
    pub part: Part,
    /// Single network to show; absent for all.
    pub network: Option<String>,
    /// JSON on one line, in place of text for people.
    pub json: bool,
}

/// Part of the daemon's state that an answer shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Everything.
    #[default]
    All,
    /// Nodes, and external clients on an ingress.
    Peers,
    /// External clients.
    Clients,
    /// Exits of each network.
    Exits,
    /// Traffic that goes through exits.
    Scopes,
    /// Health [`Check`](checks::Check)s, as JSON only.
    Checks,
}

/// Renders an answer of the daemon as text; the reason as an error where the request failed.
pub fn render(view: &View, answer: &Answer) -> Result<String, String> {
    match answer {
        Answer::Failed(why) => Err(why.clone()),
        Answer::Status(status) => part(view, status),
        Answer::Plan(plan) if view.json => json(plan),
        Answer::Joined(joined) if view.json => json(joined),
        Answer::Done(done) if view.json => json(done),
        answer => Ok(text(answer)),
    }
}

fn part(view: &View, status: &Status) -> Result<String, String> {
    let networks = networks(status, view.network.as_deref())?;
    let text: fn(&NetworkStatus) -> String = match (view.part, view.json) {
        (Part::All, true) => return json(status),
        (Part::All, false) => return Ok(self::status(status)),
        (Part::Peers, true) => return json(&all(&networks, |network| &network.peers)),
        (Part::Clients, true) => return json(&all(&networks, |network| &network.clients)),
        (Part::Exits, true) => return json(&by_name(&networks, |network| &network.exits)),
        (Part::Scopes, true) => return json(&by_name(&networks, |network| &network.scopes)),
        (Part::Checks, _) => return json(&checks::checks(status)),
        (Part::Exits | Part::Scopes, false) if status.networks.is_empty() => return Ok(NO_NETWORK.to_owned()),
        (Part::Peers, false) => all_peers,
        (Part::Clients, false) => clients,
        (Part::Exits, false) => exits::list,
        (Part::Scopes, false) => exits::of_network,
    };
    Ok(networks.into_iter().map(text).collect())
}

const NO_NETWORK: &str = "No network joined yet: “gatewrt join CODE”.\n";

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn all<'a, T>(networks: &[&'a NetworkStatus], part: fn(&NetworkStatus) -> &Vec<T>) -> Vec<&'a T> {
    let mut all = Vec::new();
    networks.iter().for_each(|network| all.extend(part(network)));
    all
}

fn by_name<'a, T>(
    networks: &[&'a NetworkStatus],
    part: fn(&NetworkStatus) -> &T,
) -> BTreeMap<&'a NetworkName, &'a T> {
    networks.iter().map(|network| (&network.name, part(network))).collect()
}

fn networks<'a>(status: &'a Status, only: Option<&str>) -> Result<Vec<&'a NetworkStatus>, String> {
    let chosen: Vec<_> = status
        .networks
        .iter()
        .filter(|network| only.is_none_or(|only| network.name.as_str() == only))
        .collect();
    match only {
        Some(only) if chosen.is_empty() => Err(format!("this router has not joined a network “{only}”")),
        _ => Ok(chosen),
    }
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => self::status(status),
        Answer::Plan(plan) if plan.steps.is_empty() => {
            "Nothing to do: the kernel is as it shall be.\n".to_owned()
        }
        Answer::Plan(plan) => plan.steps.iter().map(|step| format!("{step}\n")).collect(),
        Answer::Joined(joined) => {
            let addresses: Vec<_> = joined.addresses.iter().map(ToString::to_string).collect();
            format!("Joined {} as {}: {}\n", joined.network, joined.name, addresses.join(", "))
        }
        Answer::Done(done) if done.hint.is_empty() => String::new(),
        Answer::Done(done) => format!("{}\n", done.hint),
        Answer::Failed(why) => format!("{why}\n"),
    }
}

fn status(status: &Status) -> String {
    let state = if status.settled { "all in effect" } else { "changes under way" };
    let mut text = format!(
        "gatewrt {}, up {}, {} MB, firewall {}, {state}\n",
        status.version,
        duration(status.uptime_s),
        tenths((status.memory_kib * 10 + 512) / 1024),
        if status.firewall.is_empty() { "not looked at yet" } else { &status.firewall }
    );
    for fault in &status.config {
        let _ = writeln!(text, "  ! {fault}");
    }
    if status.networks.is_empty() && status.unreadable.is_empty() {
        text.push_str(NO_NETWORK);
    }
    for network in &status.networks {
        text.push('\n');
        text.push_str(&self::network(network));
        text.push_str(&all_peers(network));
        if let Some(rolled_back) = &network.rolled_back {
            let _ =
                writeln!(text, "  ! rolled back revision {}: {}", rolled_back.assignment, rolled_back.why);
        }
        for failure in &network.failures {
            let _ = writeln!(text, "  ! could not {}: {}", failure.what, failure.why);
        }
    }
    for (name, why) in &status.unreadable {
        let _ = writeln!(text, "\nnetwork {name}\n  ! is left as it runs: {why}");
    }
    text
}

fn network(network: &NetworkStatus) -> String {
    let mut text = format!("network {}\n", network.name);
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<10} {value}");
    };
    let addresses: Vec<_> = network.addresses.iter().map(ToString::to_string).collect();
    line("this node", format!("{} {}", network.node_name, addresses.join(" ")));
    line(
        "interface",
        format!("{} ({} WireGuard, UDP port {})", network.interface, backend(network), network.port),
    );
    line("control", control(network));
    if let Some(left) = network.trial_s {
        line(
            "on trial",
            format!("the last change, for {left} s more: it is rolled back unless the control link works"),
        );
    }
    let served = network.egress.iter();
    let served: Vec<_> = served
        .map(|egress| format!("{} (NAT {})", egress.prefix, if egress.nat { "on" } else { "off" }))
        .collect();
    if !served.is_empty() {
        line("serves", served.join(", "));
    }
    if network.ingress {
        let came = network.clients.iter().filter(|client| client.handshake_s.is_some()).count();
        line("lets in", format!("{} external clients, {came} of them were here", network.clients.len()));
    }
    if network.is_exit {
        let leads = network.offer.as_ref().map_or("nothing", exits::families);
        line("is an exit", format!("leads to {leads}"));
    }
    if !network.scopes.is_empty() || network.scopes_by != ConfigSource::Coordinator {
        text.push_str(&exits::scopes(network.scopes_by, &network.scopes));
    }
    let refused: u64 = network.refused.values().sum();
    if refused > 0 {
        let reasons: Vec<_> =
            network.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let _ = writeln!(text, "  {:<10} {refused} messages: {}", "refused", reasons.join(", "));
    }
    text
}

fn backend(network: &NetworkStatus) -> &str {
    if network.wireguard.is_empty() { "no" } else { &network.wireguard }
}

fn control(network: &NetworkStatus) -> String {
    match &network.control_error {
        Some(error) => format!("{} {}: {error}", network.control, network.broker),
        None => format!("{} {}", network.control, network.broker),
    }
}

/// Tables of a network's nodes, and of its external clients on an ingress.
fn all_peers(network: &NetworkStatus) -> String {
    let clients = network.ingress.then(|| clients(network));
    peers(network) + &clients.unwrap_or_default()
}

fn peers(network: &NetworkStatus) -> String {
    if network.peers.is_empty() {
        return format!("  no other node in {} yet\n", network.name);
    }
    let head = ["PEER", "ADDRESS", "PREFIXES", "PATH", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT"];
    let mut rows = vec![row(&head)];
    let mut peers: Vec<_> = network.peers.iter().collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    for peer in peers {
        let path = match peer.path {
            Path::Direct => "direct",
            Path::Down => "down",
            Path::Other => "other",
        };
        let seen = seen(peer.endpoint, peer.handshake_s, peer.rx, peer.tx);
        let name = [peer.name.to_string(), first(&peer.addresses), path.to_owned()];
        add_rows(name, seen, &peer.prefixes, &mut rows);
    }
    table(&rows)
}

fn clients(network: &NetworkStatus) -> String {
    if network.clients.is_empty() {
        return format!("  no external client is let into {} here\n", network.name);
    }
    client_table(&network.clients)
}

fn client_table(clients: &[ClientStatus]) -> String {
    let head = ["CLIENT", "ADDRESS", "BEHIND IT", "MAY", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT"];
    let mut rows = vec![row(&head)];
    for client in clients {
        let may = match (client.internet, client.reachable) {
            (true, true) => "Internet, be reached",
            (true, false) => "Internet",
            (false, true) => "be reached",
            (false, false) => "-",
        };
        let key = Short(&client.key).to_string();
        let seen = seen(client.endpoint, client.handshake_s, client.rx, client.tx);
        add_rows([key, first(&client.addresses), may.to_owned()], seen, &client.prefixes, &mut rows);
    }
    table(&rows)
}

/// Adds one row for a peer to its table, and one more for each further prefix.
fn add_rows(
    [name, address, way]: [String; 3],
    [endpoint, handshake, rx, tx]: [String; 4],
    prefixes: &[Prefix],
    rows: &mut Vec<Vec<String>>,
) {
    let mut prefixes = prefixes.iter().map(ToString::to_string);
    let prefix = prefixes.next().unwrap_or_else(|| "-".to_owned());
    rows.push(vec![name, address, prefix, way, endpoint, handshake, rx, tx]);
    for prefix in prefixes {
        rows.push(vec![String::new(), String::new(), prefix]);
    }
}

fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Cells of a peer's row that come from WireGuard: endpoint, handshake, bytes received and sent.
fn seen(endpoint: Option<SocketAddr>, handshake_s: Option<u64>, rx: u64, tx: u64) -> [String; 4] {
    [
        endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string()),
        handshake_s.map_or("never".to_owned(), |age| format!("{} ago", duration(age))),
        bytes(rx),
        bytes(tx),
    ]
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Formats the rows of a table with their columns aligned, indented by two.
fn table(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        text.push_str(line.trim_ascii_end());
        text.push('\n');
    }
    text
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let (mut unit, mut name) = (1, "B");
    for larger in UNITS {
        if count / unit < 1000 {
            break;
        }
        (unit, name) = (unit * 1000, larger);
    }
    match unit {
        1 => format!("{count} B"),
        _ => format!("{} {name}", tenths(count.saturating_add(unit / 20) / (unit / 10))),
    }
}

/// Formats a number that is given in tenths, with one decimal place. Floating point would bring its formatting along, 5
/// KB.
fn tenths(count: u64) -> String {
    format!("{}.{}", count / 10, count % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amount_is_shown_in_its_largest_unit() {
        assert_eq!(
            (bytes(999), bytes(1500), bytes(2_549_999), bytes(2_560_000_000_000)),
            ("999 B".into(), "1.5 kB".into(), "2.5 MB".into(), "2.6 TB".into())
        );
        assert_eq!(
            (duration(5), duration(300), duration(400_000)),
            ("5 s".into(), "5 min".into(), "4 days".into())
        );
    }

    #[test]
    fn client_with_two_prefixes_takes_two_rows() {
        let client = ClientStatus {
            key: gatewrt_protocol::WgPublicKey([7; 32]),
            addresses: vec![[10, 90, 1, 2].into()],
            prefixes: ["192.168.50.0/24", "fd50::/64"].map(|text| text.parse().expect("a prefix")).into(),
            internet: true,
            reachable: false,
            endpoint: None,
            handshake_s: Some(5),
            rx: 1500,
            tx: 7,
        };
        let expected = "  \
  CLIENT     ADDRESS    BEHIND IT        MAY       ENDPOINT  HANDSHAKE  RECEIVED  SENT
  BwcHBwcH…  10.90.1.2  192.168.50.0/24  Internet  -         5 s ago    1.5 kB    7 B
                        fd50::/64
";
        assert_eq!(client_table(&[client]), expected);
    }

    #[test]
    fn table_with_uneven_cells_is_aligned() {
        let rows = [row(&["A", "BB"]), row(&["CCC", "D"])];
        assert_eq!(table(&rows), "  A    BB\n  CCC  D\n");
    }
}

//! Hints for a person who looks around in the lab after the last step.

use std::net::SocketAddr;

use anyhow::Result;
use gatewrt_tests::lab::program_directory;

use crate::screen::Screen;
use crate::stage::LAB;
use crate::story::NETWORK;

/// Prints commands to try in a second terminal while the lab stays up.
pub fn suggest(screen: &Screen, is_good: bool, page: Option<SocketAddr>) -> Result<()> {
    let lab = program_directory()?.join("lab");
    if !is_good {
        screen.note("A step failed; the lab stays up to look around in, until Ctrl-C.");
    } else {
        screen.note("The network stays up until Ctrl-C. Try it yourself, as root in a second terminal:");
    }
    screen.say("");
    let commands = [
        (format!("alias lab='{} --lab {LAB}'", lab.display()), ""),
        ("lab diagram".to_owned(), "all hosts with their addresses"),
        ("lab exec office-pc ping barn-pc".to_owned(), "from LAN to LAN"),
        ("lab exec home-pc curl -s -4 http://barn-pc/".to_owned(), "which address does the server see?"),
        ("lab exec office gatewrt status".to_owned(), "also: peers, plan, diag"),
        ("lab exec office nft list table inet gatewrt".to_owned(), "the only rules that are ours"),
        ("lab shell barn".to_owned(), "a shell on a router, for “ip route” or “wg show”"),
        ("lab reboot barn; lab spawn barn gatewrtd".to_owned(), "cut its power, boot it again"),
    ];
    show_commands(screen, &commands);
    screen.say("");
    screen.note("As the admin, at the coordinator:");
    screen.say("");
    let admin = [
        ("alias admin='lab exec coordinator gatewrt-coordinator'".to_owned(), ""),
        (format!("admin status {NETWORK}"), "who is online"),
        ("admin watch".to_owned(), "records and reports as they change"),
        (format!("admin egress set {NETWORK} barn 192.168.30.0/24 --nat off"), "back to NAT off"),
        (
            format!("admin exit-client set {NETWORK} barn lan --of 192.168.30.0/24 --auto"),
            "out through the nearest exit",
        ),
        (format!("admin client list {NETWORK}"), "also: qr, config, disable, delete"),
        (format!("admin check {NETWORK} phone site:barn"), "may the phone reach the barn, and why?"),
        (format!("admin node remove {NETWORK} home"), "cut a router off"),
        ("lab spawn web gatewrtd".to_owned(), "a fourth node: the server web joins, too"),
        (format!("lab exec web gatewrt join $(admin code create {NETWORK})"), ""),
        ("lab exec web ping barn-pc".to_owned(), ""),
    ];
    show_commands(screen, &admin);
    screen.say("");
    if let Some(page) = page {
        screen.note(&format!("The page: https://{page}/, with the token that this prints:"));
        show_commands(screen, &[("lab exec coordinator cat /var/lib/gatewrt/admin.token".to_owned(), "")]);
        screen.say("");
    }
    Ok(())
}

fn show_commands(screen: &Screen, commands: &[(String, &str)]) {
    for (command, what) in commands {
        let line = if what.is_empty() { command.clone() } else { format!("{command:<52} # {what}") };
        screen.say(&format!("     {line}"));
    }
}

//! `lab`: an emulated Internet that stays up, to look around in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use gatewrt_tests::lab::{Host, KeptLab, Kind, Topology, program_directory, serve_whoami};

const EXAMPLES: &str = "\
Examples:
  lab up three-sites                      build the built-in topology with three sites
  lab diagram                             who hangs where, with addresses
  lab exec office-pc ping -c 3 web        run a command on a host
  lab shell office                        look around on a router
  lab spawn web lab whoami                a web server that says who asked
  lab exec office-pc curl http://web/
  lab reboot office                       cut the power; only its disk is kept
  lab down                                end it; nothing remains";

/// An emulated Internet on this machine: servers, NAT boxes, site routers and the hosts behind them, each in its own
/// namespaces, with the real programs inside. Needs root.
#[derive(Parser)]
#[command(name = "lab", version, after_help = EXAMPLES)]
struct Cli {
    /// Which lab, when several are up.
    #[arg(long, global = true, value_name = "NAME")]
    lab: Option<String>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build a topology and leave it up.
    #[command(
        after_help = "FILE is a topology file, or the name of a built-in one: three-sites, two-sites, phones.\n\nExamples:\n  \
        lab up three-sites\n  lab up tests/topologies/two-sites.toml --name little"
    )]
    Up {
        /// Topology file or built-in name.
        file: PathBuf,
        /// Name of the lab; that of the file otherwise.
        #[arg(long)]
        name: Option<String>,
    },
    /// End a lab: every program and namespace in it.
    #[command(after_help = "Examples:\n  lab down\n  lab down little\n  lab down --all")]
    Down {
        /// Which one; may be left out when only one is up.
        name: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// The labs that are up.
    List,
    /// The hosts of a lab with their addresses.
    Hosts,
    /// Run a command on a host, with this terminal; its exit code is ours.
    #[command(
        after_help = "Examples:\n  lab exec office-pc ping -c 3 web\n  lab exec office gatewrt status --json\n  \
        lab exec core tcpdump -ni office udp"
    )]
    Exec {
        /// Host.
        host: String,
        /// Command with its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Start a command on a host and leave it running; prints the path of its log.
    #[command(after_help = "Examples:\n  lab spawn office gatewrtd\n  lab spawn web lab whoami\n\n\
        It ends with the host, or with: lab exec office pkill -x gatewrtd")]
    Spawn {
        /// Host.
        host: String,
        /// Command with its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// A shell on a host.
    Shell {
        /// Host.
        host: String,
    },
    /// Addresses, routes, rules, nft rule set, WireGuard and sysctls of a host.
    #[command(after_help = "Examples:\n  lab dump office\n  lab dump office --json | jq .routes4")]
    Dump {
        /// Host.
        host: String,
        /// As JSON, in the normal form that tests compare.
        #[arg(long)]
        json: bool,
    },
    /// Cut the power of a host and boot it again; only its disk is kept.
    Reboot {
        /// Host.
        host: String,
    },
    /// Give the WAN of a host another address, as a provider does.
    Renumber {
        /// Router or NAT box directly on the core.
        host: String,
    },
    /// A picture of who hangs where.
    Diagram,
    /// Serve HTTP on this host: each answer is the source address that was seen.
    #[command(after_help = "Example:\n  lab spawn web lab whoami")]
    Whoami {
        /// TCP port.
        #[arg(long, default_value_t = 80)]
        port: u16,
    },
}

fn main() -> ExitCode {
    die_of_closed_pipes();
    run(&Cli::parse()).unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

/// Restores the default action of SIGPIPE, as other programs have it: `lab dump office | head` shows ten lines and no
/// complaint.
fn die_of_closed_pipes() {
    // SAFETY: no thread is running yet, and the default action is no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn run(cli: &Cli) -> Result<ExitCode> {
    ensure!(is_allowed(&cli.command), "network namespaces need root: sudo {}", own_path()?.display());
    let lab = || KeptLab::attach(cli.lab.as_deref());
    match &cli.command {
        Action::Up { file, name } => up(file, name.as_deref().or(cli.lab.as_deref()))?,
        Action::Down { name, all } => down(name.as_deref().or(cli.lab.as_deref()), *all)?,
        Action::List => KeptLab::list()?.iter().for_each(|name| println!("{name}")),
        Action::Hosts => hosts(&lab()?),
        Action::Exec { host, command } => return exec(&lab()?, host, command),
        Action::Spawn { host, command } => println!("{}", lab()?.spawn(host, &strs(command))?.display()),
        Action::Shell { host } => return shell(&lab()?, host),
        Action::Dump { host, json } => dump(&lab()?, host, *json)?,
        Action::Reboot { host } => lab()?.reboot(host)?,
        Action::Renumber { host } => renumber(&lab()?, host)?,
        Action::Diagram => print!("{}", lab()?.diagram()),
        Action::Whoami { port } => serve_whoami(*port)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_allowed(command: &Action) -> bool {
    matches!(command, Action::List | Action::Whoami { .. }) || nix::unistd::geteuid().is_root()
}

fn own_path() -> Result<PathBuf> {
    std::env::current_exe().context("path of this program")
}

fn up(file: &Path, name: Option<&str>) -> Result<()> {
    let start = Instant::now();
    let topology = match file.to_str() {
        Some("three-sites") => Topology::three_sites()?,
        Some("two-sites") => Topology::two_sites()?,
        Some("phones") => Topology::phones()?,
        _ => Topology::load(file).map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(why) if why.kind() == ErrorKind::NotFound => error.context(
                "neither a file nor a built-in topology, which are three-sites, two-sites and phones",
            ),
            _ => error,
        })?,
    };
    let stem = file.file_stem().and_then(|stem| stem.to_str()).context("the file has no name")?;
    let lab = KeptLab::up(name.unwrap_or(stem), &topology)?;
    print!("{}", lab.diagram());
    println!("\nThe lab {} is up ({:.2} s) and stays up. Try:", lab.name(), start.elapsed().as_secs_f64());
    suggest(&lab)
}

/// Prints commands to copy: look around, start our programs, take the lab down.
fn suggest(lab: &KeptLab) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("lab").is_file()) {
        println!("  export PATH=\"{}:$PATH\"", program_directory()?.display());
    }
    let this =
        if KeptLab::list()?.len() > 1 { format!("lab --lab {}", lab.name()) } else { "lab".to_owned() };
    let hosts = lab.hosts();
    let first = |kind: Kind| hosts.iter().rfind(|host| host.kind() == kind).map(Host::name);
    let router = first(Kind::Router);
    let network = router.zip(lab.host("coordinator").ok());
    if let Some((router, coordinator)) = &network {
        println!("  {this} spawn coordinator gatewrt-coordinator serve --advertise {}", coordinator.ip4()?);
        println!("  {this} spawn {router} gatewrtd");
    }
    if let Some((pc, server)) = first(Kind::Host).zip(first(Kind::Server)) {
        println!("  {this} exec {pc} ping -c 3 {server}");
    }
    if let Some((router, _)) = &network {
        let admin = format!("{this} exec coordinator gatewrt-coordinator");
        println!("  {admin} network create net");
        println!("  {this} exec {router} gatewrt join $({admin} code create net)");
        println!("  {admin} status");
    }
    if let Some(router) = router {
        println!("  {this} shell {router}");
    }
    println!("  lab down {}", lab.name());
    Ok(())
}

fn down(name: Option<&str>, all: bool) -> Result<()> {
    let labs = KeptLab::list()?;
    if all {
        return labs.iter().try_for_each(|name| KeptLab::down(name));
    }
    if let Some(name) = name {
        return KeptLab::down(name);
    }
    ensure!(!labs.is_empty(), "no lab is up");
    ensure!(labs.len() == 1, "several labs are up ({}); say which, or --all", labs.join(", "));
    KeptLab::down(&labs[0])
}

fn hosts(lab: &KeptLab) {
    for host in lab.hosts() {
        let kind = format!("{:?}", host.kind()).to_lowercase();
        let text = |address: Option<String>| address.unwrap_or_else(|| "-".into());
        let ip4 = text(host.ip4().ok().map(|ip| ip.to_string()));
        let ip6 = text(host.ip6().ok().map(|ip| ip.to_string()));
        println!("{:<16} {kind:<8} {ip4:<16} {ip6}", host.name());
    }
}

fn exec(lab: &KeptLab, host: &str, command: &[String]) -> Result<ExitCode> {
    let status = lab.exec(host, &strs(command), &[])?;
    Ok(exit_code(status))
}

fn shell(lab: &KeptLab, host: &str) -> Result<ExitCode> {
    let status = lab.exec(host, &["bash", "--norc"], &[("PS1", r"\h:\w\$ ")])?;
    Ok(exit_code(status))
}

/// Exit code as a shell gives it: 128 plus the number of the signal if one ended the command.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn dump(lab: &KeptLab, host: &str, json: bool) -> Result<()> {
    let host = lab.host(host)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&host.dump()?)?);
        return Ok(());
    }
    for command in
        ["ip addr", "ip route show table all", "ip -6 route show table all", "ip rule", "ip -6 rule"]
    {
        println!("# {command}\n{}", host.shell(command)?.stdout);
    }
    for command in ["nft list ruleset", "wg show"] {
        println!("# {command}\n{}", host.output(&["sh", "-c", command])?.stdout);
    }
    Ok(())
}

fn renumber(lab: &KeptLab, host: &str) -> Result<()> {
    lab.change_wan_address(host)?;
    println!("{host} now has {}", lab.host(host)?.ip4()?);
    Ok(())
}

fn strs(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

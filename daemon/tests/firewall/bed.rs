//! A router between two networks, a LAN and a WAN, each a network namespace that ends with the test. This router has
//! bridges and veth in place of WireGuard: the table sees only interfaces.

use gatewrt::{
    config::FirewallChoice,
    kernel::{
        Kernel,
        linux::{LinuxKernel, Options},
    },
    plan::{Firewall, Step, TableUpdate},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

/// Longest wait for a packet that must come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The iptables program under test, chosen by the name of the test binary: `firewall_iptables.rs` is a link to
/// `firewall.rs`. Empty for nftables.
const IPTABLES: &str = match (env!("CARGO_CRATE_NAME").as_bytes(), option_env!("GATEWRT_IPTABLES")) {
    (b"firewall_iptables", None) => "iptables-legacy",
    (b"firewall_iptables", Some(name)) => name,
    _ => "",
};

/// Number of table changes in tests for lost packets: fewer for iptables, which runs programs for each family.
pub const CHANGES: u32 = if IPTABLES.is_empty() { 60 } else { 10 };

/// The option of UCI for this firewall.
pub const CHOICE: &str = if IPTABLES.is_empty() { "" } else { " option firewall 'iptables'\n" };

pub fn options() -> Options {
    match IPTABLES {
        "" => Options { firewall: FirewallChoice::Nft, ..Options::default() },
        name => {
            Options { firewall: FirewallChoice::Iptables, iptables: name.to_owned(), ..Options::default() }
        }
    }
}

/// Fills a folder with links under the names of iptables to the programs under test.
pub fn programs(folder: &Path) -> String {
    fs::create_dir_all(folder).unwrap();
    for what in ["restore", "save"] {
        for (name, real) in
            [("iptables", IPTABLES.to_owned()), ("ip6tables", IPTABLES.replace("iptables", "ip6tables"))]
        {
            let _ = symlink(format!("/usr/sbin/{real}-{what}"), folder.join(format!("{name}-{what}")));
        }
    }
    folder.display().to_string()
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, held by a thread. Sockets made in it stay in it, whoever uses them.
pub struct Host {
    jobs: Sender<Job>,
    pub tid: i32,
}

impl Host {
    fn new() -> Self {
        let (jobs, inbox) = channel::<Job>();
        let (report, tid) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
            report.send(gettid().as_raw()).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        let host = Self { jobs, tid: tid.recv().expect("a network namespace") };
        host.ip("link set lo up");
        // Duplicate address detection takes seconds, and all addresses here are unique.
        host.sysctl("ipv6/conf/default/accept_dad", "0");
        host
    }

    /// Runs a job in the namespace.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (report, result) = channel();
        self.jobs.send(Box::new(move || drop(report.send(job())))).unwrap();
        result.recv().expect("the job in the namespace panicked")
    }

    /// Runs a program in the namespace, and returns its output; the test fails if the program does.
    pub fn command(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (shown, input) = (format!("{command:?}"), input.to_owned());
        let output = self.run(move || {
            let mut child = command.spawn()?;
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()))?;
            child.wait_with_output()
        });
        let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.command("ip", &arguments.split(' ').collect::<Vec<_>>(), "")
    }

    pub fn nft(&self, text: &str) {
        self.command("nft", &["-f", "-"], text);
    }

    /// Writes our table with the firewall under test.
    pub fn table(&self, firewall: &Firewall) {
        self.change(Step::WriteRuleset(TableUpdate::new(None, Arc::new(firewall.table()))));
    }

    /// Adds a rule of the owner, after ours, that refuses packets forwarded to an address.
    pub fn refuse(&self, to: IpAddr) {
        let ip = if to.is_ipv4() { "ip" } else { "ip6" };
        if IPTABLES.is_empty() {
            return self.nft(&format!(
                "table inet owner {{ chain forward {{ type filter hook forward priority filter + 10; \
                 {ip} daddr {to} reject with icmpx type admin-prohibited; }}; }}"
            ));
        }
        let (program, kind) = match to {
            IpAddr::V4(_) => (IPTABLES.to_owned(), "icmp-admin-prohibited"),
            IpAddr::V6(_) => (IPTABLES.replace("iptables", "ip6tables"), "icmp6-adm-prohibited"),
        };
        let rule = format!("-w -A FORWARD -d {to} -j REJECT --reject-with {kind}");
        self.command(&program, &rule.split(' ').collect::<Vec<_>>(), "");
    }

    /// Clears all tables, as a foreign program may.
    pub fn flush(&self) {
        self.nft("flush ruleset");
        for program in [IPTABLES.to_owned(), IPTABLES.replace("iptables", "ip6tables")] {
            if !program.is_empty() {
                let text: String =
                    ["filter", "mangle", "nat"].iter().map(|table| format!("*{table}\nCOMMIT\n")).collect();
                self.command(&format!("{program}-restore"), &["-w"], &text);
            }
        }
    }

    pub fn without_table(&self) {
        self.change(Step::DeleteRuleset);
    }

    fn change(&self, step: Step) {
        self.run(move || {
            let folder = tempfile::tempdir().unwrap();
            let options = Options { run_dir: folder.path().into(), ..options() };
            LinuxKernel::new(options).unwrap().execute(&step).unwrap();
        });
    }

    pub fn sysctl(&self, path: &'static str, value: &'static str) {
        self.run(move || std::fs::write(format!("/proc/sys/net/{path}"), value)).expect(path);
    }

    /// Gives the interface at the host's end of the wire its addresses, and a default route by the first
    /// address of each prefix.
    fn address(&self, link: &str, addresses: [&str; 2], default: bool) {
        self.ip(&format!("link set {link} up"));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {link}{nodad}"));
            let (network, _) = address.rsplit_once(['.', ':']).unwrap();
            let router = if address.contains(':') { format!("{network}:1") } else { format!("{network}.1") };
            if default {
                self.ip(&format!("route add default via {router} dev {link} onlink"));
            }
        }
    }

    pub fn listen(&self, at: IpAddr) -> TcpListener {
        self.run(move || TcpListener::bind((at, 0))).unwrap()
    }

    pub fn udp(&self, at: IpAddr) -> UdpSocket {
        let socket = self.run(move || UdpSocket::bind((at, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket =
            self.run(move || Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    }

    /// Opens a connection to a server on `server`, and returns both ends.
    pub fn reach(&self, server: &Self, at: IpAddr) -> io::Result<(TcpStream, TcpStream)> {
        let listener = server.listen(at);
        let client = self.connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        accepted.set_read_timeout(Some(PATIENCE))?;
        Ok((client, accepted))
    }

    /// The source that a server on `server` sees.
    pub fn seen(&self, server: &Self, at: IpAddr) -> IpAddr {
        let (_client, accepted) = self.reach(server, at).unwrap_or_else(|error| panic!("{at}: {error}"));
        accepted.peer_addr().unwrap().ip()
    }
}

/// The router and the hosts around it. Network `home` has two members, so that one can be a relay's target.
pub struct Bed {
    pub router: Host,
    pub home: Host,
    pub home2: Host,
    pub office: Host,
    pub lan: Host,
    pub wan: Host,
}

impl Bed {
    pub const HOME: [&str; 2] = ["10.9.0.2", "fd09::2"];
    pub const HOME2: [&str; 2] = ["10.9.0.3", "fd09::3"];
    pub const OFFICE: [&str; 2] = ["10.8.0.2", "fd08::2"];
    pub const LAN: [&str; 2] = ["192.168.20.10", "fd20::10"];
    pub const LAN_ROUTER: [&str; 2] = ["192.168.20.1", "fd20::1"];
    pub const WAN: [&str; 2] = ["203.0.113.2", "2001:db8::2"];

    pub fn new() -> Self {
        let hosts = || (Host::new(), Host::new(), Host::new());
        let ((router, home, home2), (office, lan, wan)) = (hosts(), hosts());
        let bed = Self { router, home, home2, office, lan, wan };
        bed.router.ip("link add gw-home type bridge");
        bed.wire(&bed.home, "home");
        bed.wire(&bed.home2, "home2");
        bed.router.ip("link set home master gw-home");
        bed.router.ip("link set home2 master gw-home");
        bed.wire(&bed.office, "gw-office");
        bed.wire(&bed.lan, "lan0");
        bed.wire(&bed.wan, "wan0");
        // Members of a network have a route to the router alone, so all traffic between them passes it.
        bed.home.address("eth0", ["10.9.0.2/32", "fd09::2/128"], true);
        bed.home2.address("eth0", ["10.9.0.3/32", "fd09::3/128"], true);
        bed.office.address("eth0", ["10.8.0.2/24", "fd08::2/64"], true);
        bed.lan.address("eth0", ["192.168.20.10/24", "fd20::10/64"], true);
        bed.wan.address("eth0", ["203.0.113.2/24", "2001:db8::2/64"], true);
        bed.router.address("gw-home", ["10.9.0.1/24", "fd09::1/64"], false);
        bed.router.address("gw-office", ["10.8.0.1/24", "fd08::1/64"], false);
        bed.router.address("lan0", ["192.168.20.1/24", "fd20::1/64"], false);
        bed.router.address("wan0", ["203.0.113.1/24", "2001:db8::1/64"], false);
        bed.router.sysctl("ipv4/ip_forward", "1");
        bed.router.sysctl("ipv6/conf/all/forwarding", "1");
        bed.router.sysctl("ipv4/conf/all/send_redirects", "0");
        bed.router.sysctl("ipv4/conf/gw-home/send_redirects", "0");
        bed
    }

    /// A veth pair: `link` at the router, `eth0` at the host.
    fn wire(&self, host: &Host, link: &str) {
        self.router.ip(&format!("link add {link} type veth peer name eth0 netns {}", host.tid));
        self.router.ip(&format!("link set {link} up"));
    }
}

/// Both families of one host.
pub fn both(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().unwrap())
}

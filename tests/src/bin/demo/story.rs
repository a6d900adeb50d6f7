//! Steps of the demo: what is done, why, and the result that is checked.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::until;
use gatewrt_tests::mesh::{CONFIG, SERVES, check_handshakes, owner_config, serve_command};

use crate::exits;
use crate::phone;
use crate::scene::{SOON, Scene};
use crate::screen::{Screen, centred, table};

/// One step of the demo.
pub struct Step {
    /// Heading.
    pub title: &'static str,
    /// Explanation for someone who sees it for the first time.
    pub why: &'static str,
    /// Action; an error says why the step failed.
    pub play: fn(&mut Scene) -> Result<()>,
}

/// The farm's network.
pub const NETWORK: &str = "farm";
/// The routers that join.
pub const ROUTERS: [&str; 3] = ["office", "home", "barn"];
const HOSTS: [&str; 3] = ["office-pc", "home-pc", "barn-pc"];

/// All steps, in order.
pub const STEPS: [Step; 23] = [
    Step {
        title: "Three sites, each for itself",
        why: "A farm has an office, a home and a barn: three routers on the Internet, each with a LAN of private \
              addresses behind it. The barn's router has no public IPv4 address: it sits behind a NAT box of its \
              provider, which forwards one UDP port to it. The LANs can't reach each other.",
        play: three_sites,
    },
    Step {
        title: "A coordinator",
        why: "One program on one server, with an MQTT broker and a database in it. It keeps what the admin wants, signs \
              it and publishes it to the routers. No traffic between sites ever goes through it.",
        play: coordinator,
    },
    Step {
        title: "A network, and a join code for three routers",
        why: "A network has its own addresses, of both families. The join code carries all that a router needs to find \
              the coordinator and to trust it, so it is the only thing to be typed there.",
        play: network,
    },
    Step {
        title: "The office's router joins",
        why: "The daemon makes its keys on the router, which they never leave, and a WireGuard interface for the network.",
        play: |scene| join(scene, "office"),
    },
    Step {
        title: "The home's router joins",
        why: "Each router that joins is announced by one signed record; the others add one peer, and touch nothing else.",
        play: |scene| join(scene, "home"),
    },
    Step {
        title: "The barn's router joins, from behind NAT",
        why: "Others can't see from where the NAT box forwards, so the owner of this router states it in its UCI file.",
        play: |scene| join(scene, "barn"),
    },
    Step {
        title: "Tunnels from each router to each other",
        why: "The routers talk WireGuard directly, site to site. So far they reach each other, but not the LANs.",
        play: tunnels,
    },
    Step {
        title: "Egress: each router serves its LAN to the network",
        why: "The admin says which prefixes are reached through which router. With NAT off, hosts keep their addresses.",
        play: egress,
    },
    Step {
        title: "Every host reaches every other",
        why: "One ping in full, then all of them, over IPv4 and IPv6.",
        play: pings,
    },
    Step {
        title: "NAT off: a server sees the host that asks",
        why: "A web server on each PC answers with the source address that it saw: the asking host's own.",
        play: nat_off,
    },
    Step {
        title: "NAT on at the barn: the same server sees its own router",
        why: "For LANs whose hosts know no way back, or answer to their own LAN only: the router masquerades what comes \
              in from the network. It is set for each prefix, and takes effect while traffic runs.",
        play: nat_on,
    },
    Step {
        title: "How a router is doing",
        why: "On the router itself, with no coordinator needed.",
        play: router_status,
    },
    Step {
        title: "How the network is doing",
        why: "At the coordinator: who is online, and what each router reported last. It reports what happens to itself at \
              once, and all else, such as the revision of the roster that it knows, once a minute.",
        play: network_status,
    },
    Step {
        title: "Exits: two routers take others' Internet traffic out",
        why: "Each router's owner has to allow it, in UCI; then the admin switches it on.",
        play: exits::offer,
    },
    Step {
        title: "The barn's LAN goes out through the office, then through home, and never past them",
        why: "A server on the Internet answers with the address that it sees. What goes out over the barn's own uplink is \
              captured meanwhile.",
        play: exits::use_and_lose,
    },
    Step {
        title: "Ingress: the office's router lets phones in",
        why: "It gets a block of the network's addresses for them, which the others learn as one route.",
        play: phone::ingress,
    },
    Step {
        title: "A phone is added: a file, or a code to scan",
        why: "The phone needs WireGuard's own app and nothing of ours. Its private key is in here, and nowhere else.",
        play: phone::add,
    },
    Step {
        title: "The phone is in, from behind its provider's NAT",
        why: "It reaches every site, over IPv4 and IPv6, although its provider knows IPv4 alone. Nobody can call it \
              unless the admin says so.",
        play: phone::up,
    },
    Step {
        title: "The phone is lost, and found again",
        why: "A switch cuts it off at once, connections that run included, and lets it in again with the file it has.",
        play: phone::cut,
    },
    Step {
        title: "The admin's page",
        why: "Everything that was typed here can be done on a page which the coordinator serves itself.",
        play: phone::page,
    },
    Step {
        title: "The coordinator stops: traffic flows on",
        why: "It is never in the data path. Routers keep the last records and go on with them.",
        play: coordinator_stops,
    },
    Step {
        title: "A router loses power while there is no coordinator",
        why: "Everything but its disk is gone. The daemon finds the last records there and needs nobody to be back.",
        play: power_cut,
    },
    Step {
        title: "The coordinator is back",
        why: "Its state survived in its database; the routers find it again by themselves.",
        play: coordinator_returns,
    },
];

/// Prints the introduction.
pub fn introduce(screen: &Screen) {
    screen.title("GateWRT demo: three sites become one network, and let a phone in");
    screen.note(
        "GateWRT joins the sites of people who run routers: each router becomes a WireGuard gateway for the LAN behind \
         it, and a light coordinator tells the routers of each other. Here this machine plays the Internet: each host \
         is a network namespace of its own with the real programs in it, and the packets are real. What follows after \
         a prompt such as “office# ” is typed on that host, and what it printed.",
    );
}

fn three_sites(scene: &mut Scene) -> Result<()> {
    scene.screen.say("");
    scene.screen.say(&picture(scene)?);
    scene.run_showing("office-pc", "ping -4 -c 1 web", is_answer)?;
    scene.run_in_vain("office-pc", "ping -4 -c 1 -W 1 barn-pc", |line| {
        line.contains("nreachable") || line.contains("received")
    })
}

fn picture(scene: &Scene) -> Result<String> {
    const WIDTH: usize = 16;
    let wan = |name: &str| Ok::<_, anyhow::Error>(scene.host(name)?.ip4()?.to_string());
    let lans = ROUTERS.map(|router| scene.host(router).and_then(|router| router.lan_prefixes()));
    let lans = lans.into_iter().collect::<Result<Vec<_>>>()?;
    let row = |cells: [&str; 6]| centred(&cells, WIDTH);
    let lan_row = |at: usize| row(["", "", &lans[0][at], &lans[1][at], &lans[2][at], ""]);
    let [cell, isp] = [wan("cell")?, wan("isp")?];
    let rows = [
        format!("{:═^1$}", " the Internet ", WIDTH * 6),
        row(["│"; 6]),
        row(["coordinator", "web", "office", "home", "isp (NAT)", "cell (NAT)"]),
        row([&wan("coordinator")?, &wan("web")?, &wan("office")?, &wan("home")?, &isp, &cell]),
        row(["", "", "│", "│", "│", "│"]),
        row(["", "", "│", "│", "barn", "phone"]),
        row(["", "", "│", "│", &wan("barn")?, &wan("phone")?]),
        row(["", "", "│", "│", "│", ""]),
        lan_row(0),
        lan_row(1),
        row(["", "", "│", "│", "│", ""]),
        row(["", "", HOSTS[0], HOSTS[1], HOSTS[2], ""]),
        String::new(),
    ];
    Ok(rows.join("\n"))
}

fn coordinator(scene: &mut Scene) -> Result<()> {
    let command = serve_command(&scene.host("coordinator")?)?;
    let heading =
        |line: &str| ["is ready", "  HTTPS", "  MQTT", "  data"].iter().any(|word| line.contains(word));
    scene.start("coordinator", &command, SERVES, heading).map(drop)
}

fn network(scene: &mut Scene) -> Result<()> {
    let is_news = |line: &str| !line.starts_with("next");
    scene.run_showing("coordinator", &format!("gatewrt-coordinator network create {NETWORK}"), is_news)?;
    let command = format!("gatewrt-coordinator code create {NETWORK} --uses {}", ROUTERS.len());
    scene.code = scene.run_showing("coordinator", &command, is_news)?.trim().to_owned();
    Ok(())
}

fn join(scene: &mut Scene, router: &str) -> Result<()> {
    let host = scene.host(router)?;
    if let Some(text) = owner_config(&host, NETWORK)? {
        host.write_file(CONFIG, text)?;
        scene.run(router, &format!("cat {CONFIG}"))?;
    }
    scene.start(router, "gatewrtd", "is running", |line| line.contains("is running"))?;
    scene.run(router, &format!("gatewrt join {} --name {router}", scene.code))?;
    Ok(())
}

fn tunnels(scene: &mut Scene) -> Result<()> {
    for router in ROUTERS {
        until(SOON, &format!("{router} has a handshake with each other router"), || {
            check_handshakes(&network_of(scene, router)?, ROUTERS.len() - 1)
        })?;
    }
    scene.run("office", "gatewrt peers")?;
    let barn: IpAddr = network_of(scene, "barn")?["addresses"][0].as_str().context("an address")?.parse()?;
    scene.run_showing("office", &format!("ping -c 1 {barn}"), is_answer)?;
    Ok(())
}

/// Status of the network on a router.
fn network_of(scene: &Scene, router: &str) -> Result<serde_json::Value> {
    let status: serde_json::Value = serde_json::from_str(&scene.ask(router, "gatewrt status --json")?)?;
    Ok(status["networks"][0].clone())
}

fn egress(scene: &mut Scene) -> Result<()> {
    ROUTERS.iter().try_for_each(|router| serve(scene, router, "off"))
}

fn serve(scene: &Scene, router: &str, nat: &str) -> Result<()> {
    for prefix in scene.host(router)?.lan_prefixes()? {
        let command = format!("gatewrt-coordinator egress set {NETWORK} {router} {prefix} --nat {nat}");
        scene.run("coordinator", &command)?;
    }
    Ok(())
}

fn pings(scene: &mut Scene) -> Result<()> {
    scene.wait("office-pc", "ping -4 -c 1 -W 1 barn-pc", is_answer)?;
    scene.run_showing("office-pc", "ping -4 -c 1 barn-pc", is_answer)?;
    let heading = std::iter::once(String::new()).chain(HOSTS.map(|host| format!("to {host}")));
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for from in HOSTS {
        let mut row = vec![format!("from {from}")];
        for to in HOSTS {
            let cell = || {
                Ok::<_, anyhow::Error>(format!(
                    "{} / {} ms",
                    round_trip(scene, from, to, 4)?,
                    round_trip(scene, from, to, 6)?
                ))
            };
            row.push(if from == to { "-".to_owned() } else { cell()? });
        }
        rows.push(row);
    }
    scene.screen.output(&table(&rows));
    Ok(())
}

/// Round-trip time in milliseconds, as ping prints it.
fn round_trip(scene: &Scene, from: &str, to: &str, family: u8) -> Result<String> {
    let command = format!("ping -{family} -n -c 1 -W 1 {to}");
    let said = until(SOON, &format!("{from} reaches {to} over IPv{family}"), || scene.ask(from, &command))?;
    let time = said.split_once("time=").and_then(|(_, rest)| rest.split_once(' '));
    Ok(time.context("ping says a time")?.0.to_owned())
}

fn nat_off(scene: &mut Scene) -> Result<()> {
    for host in HOSTS {
        scene.start(host, "lab whoami", "", |_| false)?;
    }
    let office = scene.host("office-pc")?;
    let seen = [office.ip4()?.to_string(), office.ip6()?.to_string()];
    who_asks(scene, "office-pc", "barn-pc", &seen)?;
    let barn = scene.host("barn-pc")?;
    scene.screen.note("And the other way:");
    who_asks(scene, "barn-pc", "office-pc", &[barn.ip4()?.to_string(), barn.ip6()?.to_string()])
}

fn nat_on(scene: &mut Scene) -> Result<()> {
    serve(scene, "barn", "on")?;
    let router = scene.host("barn")?;
    who_asks(scene, "office-pc", "barn-pc", &[router.lan4()?.to_string(), router.lan6()?.to_string()])
}

/// Sends requests over IPv4 and IPv6, and checks the source address that the server saw.
fn who_asks(scene: &Scene, from: &str, server: &str, expected: &[String; 2]) -> Result<()> {
    for (family, expected) in [4, 6].into_iter().zip(expected) {
        let command = format!("curl -sS -{family} http://{server}/");
        scene.wait(from, &command, |seen| seen.trim() == expected)?;
        let seen = scene.run(from, &command)?;
        ensure!(seen.trim() == expected, "{server} saw {}, not {expected}", seen.trim());
    }
    Ok(())
}

fn router_status(scene: &mut Scene) -> Result<()> {
    scene.run("barn", "gatewrt status").map(drop)
}

fn network_status(scene: &mut Scene) -> Result<()> {
    let command = format!("gatewrt-coordinator status {NETWORK}");
    // Two reports are at least two seconds apart.
    scene
        .wait("coordinator", &command, |said| !said.contains("assignment ") && !said.contains("no report"))?;
    scene.run("coordinator", &command).map(drop)
}

fn coordinator_stops(scene: &mut Scene) -> Result<()> {
    const STREAM: &str = "ping -q -i 0.01 -c 100 barn-pc";
    let before = scene.host("office-pc")?;
    let stream = std::thread::spawn(move || before.output(&["sh", "-c", STREAM]));
    scene.screen.command("office-pc", &format!("{STREAM} &"));
    scene.run("coordinator", "kill $(pidof gatewrt-coordinator)")?;
    scene.wait("coordinator", "pidof gatewrt-coordinator || echo gone", |said| said.contains("gone"))?;
    let output = stream.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    scene.screen.output(
        output
            .stdout
            .lines()
            .filter(|line| line.contains("transmitted"))
            .collect::<Vec<_>>()
            .join("\n")
            .as_str(),
    );
    ensure!(output.stdout.contains(" 0% packet loss"), "packets were lost");
    let is_connected = |line: &str| line.trim_start().starts_with("control");
    scene.run_showing("office", "gatewrt status", is_connected)?;
    Ok(())
}

fn power_cut(scene: &mut Scene) -> Result<()> {
    scene.reboot("home")?;
    let start = Instant::now();
    scene.start("home", "gatewrtd", "is running", |line| line.contains("is running"))?;
    scene.run_showing("office-pc", "ping -i 0.05 -c 1 -w 20 home-pc", is_answer)?;
    let time = start.elapsed().as_secs_f64();
    scene.screen.note(&format!("home was back in the network {time:.2} s after its daemon was started."));
    Ok(())
}

fn coordinator_returns(scene: &mut Scene) -> Result<()> {
    coordinator(scene)?;
    let all = format!("{0} of {0} nodes online", ROUTERS.len());
    let command = format!("gatewrt-coordinator status {NETWORK}");
    scene.wait("coordinator", &command, |said| said.contains(&all))?;
    scene.run_showing("coordinator", &command, |line| line.contains("nodes online"))?;
    Ok(())
}

/// True if a line of `ping` reports an answer.
pub fn is_answer(line: &str) -> bool {
    line.contains("bytes from")
}

//! Failover between exits and between sites: one dies, another takes over in time, other traffic is not disturbed, and
//! the first is used again after its recovery, without flapping. `GATEWRT_RUNS` is the number of measured deaths; it is
//! 1 when not set.

use anyhow::{Context, Result, bail, ensure};
use gatewrt_tests::{
    lab::{Family, TcpStream, TrafficGenerator, Way, eventually, until},
    mesh::exits::{EFFECT, Exits, HOME, Seen},
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest time from a death to traffic through the next.
const FAILOVER: Duration = Duration::from_secs(5);
/// Longest time from the recovery of the preferred exit to its use: a probe finds it, and it has to answer for 10 s.
const BACK: Duration = Duration::from_secs(60);
/// Most labs at a time: so many leave two processors time to spare.
const MOST_LABS: usize = 4;
/// Duration of the packet loss.
const WEATHER: Duration = Duration::from_secs(20);

/// Kinds of traffic that are measured, over IPv4 and IPv6: new connections, and a stream.
const WAYS: [Way; 2] = [Way::Tcp, Way::Udp];

fn runs() -> Result<usize> {
    std::env::var("GATEWRT_RUNS").map_or(Ok(1), |text| text.parse().context("GATEWRT_RUNS is a number"))
}

/// Measures the time until new connections and streams, over IPv4 and IPv6, are seen as `wanted`.
fn time_until(generator: &TrafficGenerator, wanted: Seen) -> Result<Duration> {
    let start = Instant::now();
    generator.forget();
    until(BACK, &format!("traffic is seen as {wanted:?}"), || -> Result<()> {
        let heard = generator.heard();
        for (way, family) in WAYS.iter().flat_map(|way| Family::BOTH.map(|family| (*way, family))) {
            let Some(address) = family.of(&wanted) else { continue };
            let seen = heard.get(&(way, family)).is_some_and(|heard| heard.seen.contains_key(&address));
            ensure!(seen, "{way} {family:?}: {heard:?}");
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

fn tell(what: &str, waits: &mut [Duration]) {
    waits.sort_unstable();
    let seconds: Vec<String> = waits.iter().map(|wait| format!("{:.1}", wait.as_secs_f32())).collect();
    let mean = waits.iter().sum::<Duration>().as_secs_f32() / waits.len() as f32;
    println!("{what}: mean {mean:.2} s, in order: {}", seconds.join(" "));
}

/// Measured times: from each death to the use of the next exit, and from each recovery to the use of the first.
#[derive(Default)]
struct Waits {
    deaths: Vec<Duration>,
    recoveries: Vec<Duration>,
}

/// Kills the exit in use again and again: the next takes over soon, and the first is used again after it recovers.
fn die_and_come_back(exits: &Exits, generator: &TrafficGenerator, times: usize) -> Result<Waits> {
    let mut waits = Waits::default();
    for _ in 0..times {
        exits.mesh.lab.isolate("farm")?;
        waits.deaths.push(time_until(generator, exits.through("office")?)?);
        exits.mesh.lab.heal()?;
        waits.recoveries.push(time_until(generator, exits.through("farm")?)?);
    }
    Ok(waits)
}

impl Waits {
    fn are_short(mut self) -> Result<()> {
        tell("from the death of farm to office", &mut self.deaths);
        tell("from its recovery back to farm", &mut self.recoveries);
        ensure!(self.deaths.iter().all(|wait| *wait <= FAILOVER), "too long: {:?}", self.deaths);
        Ok(())
    }
}

/// Asserts that no exit but `first` is used while packets are lost.
fn stay_in_bad_weather(exits: &Exits, generator: &TrafficGenerator, first: &str) -> Result<()> {
    exits.mesh.lab.set_loss(HOME, 5)?;
    generator.forget();
    let start = Instant::now();
    eventually(WEATHER * 2, "bad weather is over", || -> Result<()> {
        ensure!(start.elapsed() >= WEATHER, "it lasts");
        Ok(())
    })?;
    let seen = exits.through(first)?;
    for ((way, family), heard) in generator.heard() {
        let only = heard.seen.keys().all(|address| Some(*address) == family.of(&seen));
        ensure!(only && !heard.seen.is_empty(), "{way} {family:?} went elsewhere: {heard:?}");
    }
    exits.mesh.lab.heal()
}

/// Three exits in order of preference; many runs are spread over several labs at a time.
#[test]
fn dead_exit_fails_over_within_five_seconds_and_back_later() -> Result<()> {
    let runs = runs()?;
    let labs = runs.min(MOST_LABS);
    let times = |lab: usize| runs / labs + usize::from(lab < runs % labs);
    let waits: Vec<Result<Waits>> = thread::scope(|scope| {
        let labs: Vec<_> = (0..labs).map(|lab| scope.spawn(move || farm_dies(times(lab)))).collect();
        labs.into_iter().map(|lab| lab.join().unwrap_or_else(|_| bail!("a lab's thread panicked"))).collect()
    });
    let mut all = Waits::default();
    for waits in waits {
        let Waits { deaths, recoveries } = waits?;
        all.deaths.extend(deaths);
        all.recoveries.extend(recoveries);
    }
    all.are_short()
}

fn farm_dies(times: usize) -> Result<Waits> {
    let exits = Exits::start(&["farm", "office", "barn"])?;
    exits.mesh.serve_lans(&[HOME, "office"], false)?;
    exits.mesh.wait_for_lans(&["home-pc", "office-pc"])?;
    let lan = json!(exits.host(HOME)?.prefixes("lan")?);
    exits.set_scope("lan", &json!({ "of": lan, "exits": ["farm", "office", "barn"] }))?;
    let generator = TrafficGenerator::start_in(&exits.host("home-pc")?, exits.partners()?, &WAYS)?;
    generator.wait_until_seen_as(EFFECT, exits.through("farm")?)?;
    let (pc, office) = (exits.host("home-pc")?, exits.host("office-pc")?);
    let living = TcpStream::start(&pc, &office, office.ip4()?.into(), 20)?;
    let waits = die_and_come_back(&exits, &generator, times)?;
    living.finish()?.assert_unbroken();
    stay_in_bad_weather(&exits, &generator, "farm")?;
    Ok(waits)
}

/// Two sites serve the same prefix: the address of a server that both reach.
#[test]
fn prefix_of_a_dead_site_is_reached_through_its_stand_in() -> Result<()> {
    let exits = Exits::start(&["farm", "office"])?;
    exits.mesh.serve_lans(&[HOME], false)?;
    let web = exits.host("web")?;
    let prefixes = [format!("{}/32", web.ip4()?), format!("{}/128", web.ip6()?)];
    for (site, metric) in [("farm", "0"), ("office", "10")] {
        for prefix in &prefixes {
            let set = ["egress", "set", "home", site, prefix, "--nat", "on", "--metric", metric];
            exits.mesh.admin(&set)?;
        }
    }
    let generator = TrafficGenerator::start_in(&exits.host("home-pc")?, exits.partners()?, &WAYS)?;
    generator.wait_until_seen_as(EFFECT, exits.through("farm")?)?;
    eventually(EFFECT, "home says by whom it reaches the prefix", || -> Result<()> {
        let egress = exits.mesh.api("GET", "egress", None)?;
        let uses = |one: &&Value| one["used_by"].as_array().is_some_and(|nodes| nodes.contains(&json!(HOME)));
        let used = egress.as_array().into_iter().flatten().filter(uses).filter(|one| one["node"] == "farm");
        ensure!(used.count() == prefixes.len(), "{egress}");
        Ok(())
    })?;
    die_and_come_back(&exits, &generator, runs()?)?.are_short()?;
    stay_in_bad_weather(&exits, &generator, "farm")
}

/// Two LANs use two exits: when one dies, both use the other, whose connections live on. No router picks up a
/// connection in its middle, so one that was cut is lost.
#[test]
fn connections_through_a_living_exit_survive_the_death_of_another() -> Result<()> {
    let exits = Exits::start(&["farm", "office"])?;
    exits.host(HOME)?.shell("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0")?;
    let lan = json!(exits.host(HOME)?.prefixes("lan")?);
    exits.set_scope("lan", &json!({ "of": lan, "exits": ["farm", "office"] }))?;
    exits.set_scope("guest", &json!({ "of": ["dev:guest"], "exits": ["office"] }))?;
    let talk = |host: &str, exit: &str| -> Result<TrafficGenerator> {
        let generator = TrafficGenerator::start_in(&exits.host(host)?, exits.partners()?, &WAYS)?;
        generator.wait_until_seen_as(EFFECT, exits.through(exit)?)?;
        Ok(generator)
    };
    let (generator, _guest) = (talk("home-pc", "farm")?, talk("guest-pc", "office")?);
    let web = exits.host("web")?;
    let living = TcpStream::start(&exits.host("guest-pc")?, &web, web.ip4()?.into(), 20)?;
    exits.mesh.lab.isolate("farm")?;
    let wait = time_until(&generator, exits.through("office")?)?;
    println!("from the death of farm to office: {wait:?}");
    ensure!(wait <= FAILOVER, "too long: {wait:?}");
    exits.mesh.wait_until_settled(HOME)?;
    living.finish()?.assert_unbroken();
    Ok(())
}

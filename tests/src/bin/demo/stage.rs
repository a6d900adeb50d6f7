//! Life cycle of the demo's lab: requirements, leftovers of an earlier demo, and removal.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use gatewrt_tests::lab::{KeptLab, Topology, program_directory, until};

/// Name of the lab, as in `lab --lab demo diagram`.
pub const LAB: &str = "demo";
/// Time limit for the namespaces of a killed demo to disappear.
const LAST_ONE_GOES: Duration = Duration::from_secs(3);
/// Programs of this project that the demo runs, and those of the machine.
const SHOWN: [&str; 3] = ["gatewrt", "gatewrt-coordinator", "lab"];
const USED: [&str; 7] = ["ip", "nft", "ping", "curl", "tcpdump", "wg-quick", "wireguard-go"];

/// Checks that this machine can run the demo.
pub fn check_machine() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root: sudo env PATH=\"$PATH\" make demo"
    );
    let ours = program_directory()?;
    let missing = missing(&SHOWN, |name| ours.join(name).is_file());
    ensure!(missing.is_empty(), "not in {}: {missing}; “make demo” builds all it needs", ours.display());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = self::missing(&USED, |name| std::env::split_paths(&path).any(|dir| is_program(&dir, name)));
    ensure!(missing.is_empty(), "not in the PATH: {missing}; “make demo” installs all it needs");
    Ok(())
}

fn missing(names: &[&str], is_there: impl Fn(&str) -> bool) -> String {
    names.iter().copied().filter(|name| !is_there(name)).collect::<Vec<_>>().join(", ")
}

fn is_program(dir: &Path, name: &str) -> bool {
    dir.join(name).is_file()
}

/// Owner of the lab. Changes of the lab and its removal exclude each other, so a signal never removes half a lab.
#[derive(Default)]
pub struct Stage {
    state: Mutex<State>,
    /// Address of the admin's page on this machine, once the proxy runs.
    pub page: OnceLock<SocketAddr>,
}

#[derive(Default)]
struct State {
    lab: Option<Arc<KeptLab>>,
    is_played: bool,
}

/// Proof that the lab was removed; as long as it is kept, no other lab can be built.
pub struct End<'a>(MutexGuard<'a, State>);

impl End<'_> {
    /// True if all steps were over when the lab was removed.
    pub fn is_played(&self) -> bool {
        self.0.is_played
    }
}

impl Stage {
    /// Builds the lab, after removing what a killed demo left.
    pub fn build(&self) -> Result<Arc<KeptLab>> {
        let mut state = self.hold();
        take_down_leftovers()?;
        let lab = Arc::new(KeptLab::up_with_owner(LAB, &Topology::demo()?)?);
        Ok(state.lab.insert(lab).clone())
    }

    /// Changes the lab's hosts, never while it is being removed.
    pub fn change<T>(&self, change: impl FnOnce() -> T) -> T {
        let _state = self.hold();
        change()
    }

    /// True if the lab is up; another program may have taken it down.
    pub fn is_up(&self) -> bool {
        self.hold().lab.is_some() && KeptLab::is_up(LAB)
    }

    /// Notes that all steps are over: from now on Ctrl-C is the usual end and no failure.
    pub fn note_played(&self) {
        self.hold().is_played = true;
    }

    /// Blocks for ever if the lab is being removed: a step that fails because of that is not reported.
    pub fn wait_for_end_under_way(&self) {
        drop(self.hold());
    }

    /// Removes the lab.
    pub fn end(&self) -> Result<End<'_>> {
        let state = self.hold();
        if state.lab.is_some() && KeptLab::list()?.iter().any(|name| name == LAB) {
            KeptLab::down(LAB)?;
        }
        Ok(End(state))
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_down_leftovers() -> Result<()> {
    if !KeptLab::list()?.iter().any(|name| name == LAB) {
        return Ok(());
    }
    let gone = until(LAST_ONE_GOES, "the lab of an earlier demo goes", || !KeptLab::is_up(LAB));
    ensure!(
        gone.is_ok(),
        "a lab named {LAB} is up: does a demo run in another terminal? End it there with Ctrl-C, or with: lab down {LAB}"
    );
    KeptLab::down(LAB)
}

//! The life of the demo's lab: what it needs, what an earlier demo left, and its end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use gatewrt_tests::lab::{KeptLab, Topology, program_directory, until};

/// The name of the lab, for `lab --lab demo …` in a second terminal.
pub const LAB: &str = "demo";
/// How long the namespaces of a demo that was killed may take to go.
const LAST_ONE_GOES: Duration = Duration::from_secs(3);
/// The programs that are shown, and those of the machine that are used.
const SHOWN: [&str; 3] = ["gatewrt", "gatewrt-coordinator", "lab"];
const USED: [&str; 7] = ["ip", "nft", "ping", "curl", "tcpdump", "wg-quick", "wireguard-go"];

/// Says why the demo can't run here, if it can't.
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

/// The stage with the lab on it: who changes the lab holds it, so that the lab's end, at any moment, finds it whole.
#[derive(Default)]
pub struct Stage {
    state: Mutex<State>,
    /// Where browsers on this machine find the page, once there is one.
    pub page: OnceLock<SocketAddr>,
}

#[derive(Default)]
struct State {
    lab: Option<Arc<KeptLab>>,
    is_played: bool,
}

/// The lab's end: as long as it is kept, nobody else gets onto the stage.
pub struct End<'a>(MutexGuard<'a, State>);

impl End<'_> {
    /// Whether the play was over.
    pub fn is_played(&self) -> bool {
        self.0.is_played
    }
}

impl Stage {
    /// Builds the lab, after taking away what a demo that was killed left.
    pub fn build(&self) -> Result<Arc<KeptLab>> {
        let mut state = self.hold();
        take_down_leftovers()?;
        let lab = Arc::new(KeptLab::up_with_owner(LAB, &Topology::demo()?)?);
        Ok(state.lab.insert(lab).clone())
    }

    /// Changes what the lab consists of.
    pub fn change<T>(&self, change: impl FnOnce() -> T) -> T {
        let _state = self.hold();
        change()
    }

    /// Whether the lab is there; someone may take it down from elsewhere.
    pub fn is_up(&self) -> bool {
        self.hold().lab.is_some() && KeptLab::is_up(LAB)
    }

    /// From now on Ctrl-C is no interruption.
    pub fn note_played(&self) {
        self.hold().is_played = true;
    }

    /// Does not return when the lab is being ended: what fails then is no news.
    pub fn wait_for_end_under_way(&self) {
        drop(self.hold());
    }

    /// Takes the lab down.
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

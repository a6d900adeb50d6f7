//! What happens on the stage: commands typed on hosts, what they said, and waiting for what shall come of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::{Host, KeptLab, Output, STATE_DIR, until};

use crate::page;
use crate::screen::Screen;
use crate::stage::{LAB, Stage};

/// How long anything may take that is waited for.
pub const SOON: Duration = Duration::from_secs(20);
const LOG_TAIL: usize = 12;

/// A lab on its stage, and the screen it is shown on.
pub struct Scene<'a> {
    /// Where it is shown.
    pub screen: &'a Screen,
    /// The join code, once there is one.
    pub code: String,
    lab: Arc<KeptLab>,
    stage: &'a Stage,
}

impl<'a> Scene<'a> {
    /// Builds the lab.
    pub fn build(stage: &'a Stage, screen: &'a Screen) -> Result<Self> {
        Ok(Self { lab: stage.build()?, stage, screen, code: String::new() })
    }

    /// A host of the lab.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.lab.host(name)
    }

    /// Types a command on a host, shows all that it says, and returns its standard output.
    pub fn run(&self, host: &str, line: &str) -> Result<String> {
        self.run_showing(host, line, |_| true)
    }

    /// As [`Scene::run`], and shows only chosen lines.
    pub fn run_showing(&self, host: &str, line: &str, chosen: impl Fn(&str) -> bool) -> Result<String> {
        self.screen.command(host, line);
        let output = self.execute(host, line)?;
        self.screen.output(&pick(&said(&output), chosen));
        ensure!(output.success(), "on {host} “{line}” ended with {}", output.status);
        Ok(output.stdout)
    }

    /// Types a command that can't succeed yet.
    pub fn run_in_vain(&self, host: &str, line: &str, chosen: impl Fn(&str) -> bool) -> Result<()> {
        self.screen.command(host, line);
        let output = self.execute(host, line)?;
        self.screen.output(&pick(&said(&output), chosen));
        ensure!(!output.success(), "on {host} “{line}” succeeded, too early");
        Ok(())
    }

    /// Starts a program, waits until its log holds `ready`, shows chosen lines of it, and returns where the log is.
    pub fn start(
        &self,
        host: &str,
        line: &str,
        ready: &str,
        chosen: impl Fn(&str) -> bool,
    ) -> Result<PathBuf> {
        self.screen.command(host, &format!("{line} &"));
        let log = self.lab.spawn(host, &line.split(' ').collect::<Vec<_>>())?;
        let text = until(SOON, &format!("“{ready}” in {}", log.display()), || -> Result<String> {
            let text = std::fs::read_to_string(&log).context("read its log")?;
            ensure!(text.contains(ready), text.lines().last().unwrap_or("nothing").to_owned());
            Ok(text)
        })?;
        self.screen.output(&pick(&text, chosen));
        Ok(log)
    }

    /// Runs a command without showing it, and returns its standard output.
    pub fn ask(&self, host: &str, line: &str) -> Result<String> {
        let output = self.execute(host, line)?;
        ensure!(
            output.success(),
            "on {host} “{line}” ended with {}: {}",
            output.status,
            said(&output).trim()
        );
        Ok(output.stdout)
    }

    /// Waits until a command says what it shall.
    pub fn wait(&self, host: &str, line: &str, shall: impl Fn(&str) -> bool) -> Result<()> {
        until(SOON, &format!("on {host}, {line}"), || -> Result<()> {
            let text = self.ask(host, line)?;
            ensure!(shall(&text), text.trim().to_owned());
            Ok(())
        })
    }

    /// Opens a way to the coordinator's page for browsers on this machine, and returns where it begins.
    pub fn open_page(&mut self) -> Result<SocketAddr> {
        let address = page::open(self.host("coordinator")?)?;
        Ok(*self.stage.page.get_or_init(|| address))
    }

    /// Cuts a host's power and boots it again; only its disk is kept.
    pub fn reboot(&self, host: &str) -> Result<()> {
        self.screen.command("", &format!("lab reboot {host}"));
        self.stage.change(|| self.lab.reboot(host))
    }

    /// The ends of all logs, in full width, after a failure.
    pub fn show_logs(&self) {
        for path in logs() {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            if !tail.is_empty() {
                self.screen.say(&format!("\n{}\n{}", path.display(), tail.join("\n")));
            }
        }
    }

    fn execute(&self, host: &str, line: &str) -> Result<Output> {
        self.host(host)?.output(&["sh", "-c", line])
    }
}

fn said(output: &Output) -> String {
    output.stdout.clone() + &output.stderr
}

fn pick(text: &str, chosen: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| chosen(line)).collect::<Vec<_>>().join("\n")
}

fn logs() -> Vec<PathBuf> {
    let dir = std::fs::read_dir(Path::new(STATE_DIR).join(LAB).join("logs"));
    let mut paths: Vec<PathBuf> = dir.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

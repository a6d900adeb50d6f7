//! Commands in the demo's lab: typed on a host, shown with their output, and waited for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::{Host, KeptLab, Output, STATE_DIR, until};

use crate::page;
use crate::screen::Screen;
use crate::stage::{LAB, Stage};

/// Time limit for every wait.
pub const SOON: Duration = Duration::from_secs(20);
const LOG_TAIL: usize = 12;

/// Lab of the demo with the screen that shows it.
pub struct Scene<'a> {
    /// Output of the demo.
    pub screen: &'a Screen,
    /// Join code of the network; empty before it is created.
    pub code: String,
    lab: Arc<KeptLab>,
    stage: &'a Stage,
}

impl<'a> Scene<'a> {
    /// Builds the lab.
    pub fn build(stage: &'a Stage, screen: &'a Screen) -> Result<Self> {
        Ok(Self { lab: stage.build()?, stage, screen, code: String::new() })
    }

    /// Host of the lab by name.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.lab.host(name)
    }

    /// Runs a command on a host, shows it with all of its output, and returns its standard output.
    pub fn run(&self, host: &str, line: &str) -> Result<String> {
        self.run_showing(host, line, |_| true)
    }

    /// Runs a command as [`Scene::run`] does, showing only chosen lines.
    pub fn run_showing(&self, host: &str, line: &str, chosen: impl Fn(&str) -> bool) -> Result<String> {
        self.screen.command(host, line);
        let output = self.execute(host, line)?;
        self.screen.output(&pick(&said(&output), chosen));
        ensure!(output.success(), "on {host} “{line}” ended with {}", output.status);
        Ok(output.stdout)
    }

    /// Runs a command as [`Scene::run`] does, with the demo's own terminal as standard output, for programs that show
    /// more on a terminal.
    pub fn run_on_terminal(&self, host: &str, line: &str) -> Result<()> {
        self.screen.command(host, line);
        let execute = || self.lab.exec(host, &["sh", "-c", line], &[]);
        // Runs on a thread of its own, since the thread stays on the host.
        let status = std::thread::scope(|scope| scope.spawn(execute).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(status.success(), "on {host} “{line}” ended with {status}");
        Ok(())
    }

    /// Runs a command that must fail, and shows chosen lines.
    pub fn run_in_vain(&self, host: &str, line: &str, chosen: impl Fn(&str) -> bool) -> Result<()> {
        self.screen.command(host, line);
        let output = self.execute(host, line)?;
        self.screen.output(&pick(&said(&output), chosen));
        ensure!(!output.success(), "on {host} “{line}” succeeded, too early");
        Ok(())
    }

    /// Starts a program, waits until its log holds `ready`, shows chosen lines of it, and returns the path of the log.
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

    /// Waits until a command's standard output is as expected, without showing it.
    pub fn wait(&self, host: &str, line: &str, shall: impl Fn(&str) -> bool) -> Result<()> {
        until(SOON, &format!("on {host}, {line}"), || -> Result<()> {
            let text = self.ask(host, line)?;
            ensure!(shall(&text), text.trim().to_owned());
            Ok(())
        })
    }

    /// Starts the proxy to the coordinator's page, and returns its address on this machine.
    pub fn open_page(&mut self) -> Result<SocketAddr> {
        let address = page::open(self.host("coordinator")?)?;
        Ok(*self.stage.page.get_or_init(|| address))
    }

    /// Cuts a host's power and boots it again; only its disk is kept.
    pub fn reboot(&self, host: &str) -> Result<()> {
        self.screen.command("", &format!("lab reboot {host}"));
        self.stage.change(|| self.lab.reboot(host))
    }

    /// Shows the last lines of every log, after a failure.
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

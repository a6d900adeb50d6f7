//! Packets that pass an interface, captured by the real `tcpdump`.

use std::time::Duration;

use anyhow::Result;

use super::host::Host;
use super::process::Process;
use super::wait::eventually;

/// A running capture; ended when dropped.
pub struct Capture {
    tcpdump: Process,
}

impl Capture {
    /// Starts to capture the packets on an interface (`any` for all) that match the filter; returns once `tcpdump`
    /// listens.
    pub fn start(on: &Host, ifname: &str, filter: &str) -> Result<Self> {
        Self::with(on, &["-i", ifname, filter])
    }

    /// Starts to capture the packets that come in over any interface of a host, also one that is removed and created
    /// again.
    pub fn incoming(on: &Host, filter: &str) -> Result<Self> {
        Self::with(on, &["-i", "any", "-Q", "in", filter])
    }

    fn with(on: &Host, arguments: &[&str]) -> Result<Self> {
        let tcpdump = ["tcpdump", "-n", "-l", "--immediate-mode", "-q"];
        let tcpdump = on.command(&[&tcpdump, arguments].concat()).env("TZ", "UTC").spawn()?;
        tcpdump.wait_for_log(Duration::from_secs(5), "listening on")?;
        Ok(Self { tcpdump })
    }

    /// Packets captured so far, one line each as `tcpdump -n -q` writes them, with the time of day in UTC.
    pub fn lines(&self) -> Vec<String> {
        let log = self.tcpdump.log();
        let packet = |line: &&str| line.contains(" > ") && line.starts_with(|c: char| c.is_ascii_digit());
        log.lines().filter(packet).map(str::to_owned).collect()
    }

    /// Number of packets captured so far.
    pub fn count(&self) -> usize {
        self.lines().len()
    }

    /// Waits until at least this many packets were captured.
    pub fn wait_for(&self, deadline: Duration, packets: usize) -> Result<()> {
        eventually(deadline, &format!("{packets} packets captured"), || {
            let count = self.count();
            if count >= packets { Ok(()) } else { Err(format!("{count} packets\n{}", self.tcpdump.log())) }
        })
    }
}

//! The admin's page in a real browser. Chromium on a PC behind a router of the lab plays a story of `tests/browser`
//! against the real coordinator, and this test does what happens away from the page.
//!
//! The story writes orders, one JSON object a line, and reads their results. The browser and its driver see the
//! machine's files (fonts, their own profile) but only the PC's network.

mod exits;
mod luci;

use anyhow::{Context, Result, anyhow, bail, ensure};
use gatewrt_tests::{
    lab::{Download, Host, Lab, Whoami, connects, eventually},
    mesh::{Mesh, clients::ONE_HANDSHAKE},
    phone::Phone,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The coordinator's data directory.
const DATA: &str = "/var/lib/gatewrt";
const HTTP: u16 = 80;

/// An admin's day, from the login to a phone that is cut off: see `tests/browser/story.mjs`.
#[test]
fn admin_page_serves_a_whole_day_of_work() -> Result<()> {
    let mesh = Mesh::start(Lab::phones()?, &[])?;
    let server = Whoami::start(&mesh.host("nas")?)?;
    let mut stage = Stage { mesh, phone: None, download: None, marked: Instant::now(), _server: server };
    let admin = stage.mesh.host("office-pc")?;
    play("story.mjs", &admin, |order, about| stage.act(order, about))
}

/// The lab that the story's orders change.
struct Stage {
    mesh: Mesh,
    phone: Option<Phone>,
    download: Option<Download>,
    marked: Instant,
    _server: Whoami,
}

impl Stage {
    fn act(&mut self, order: &str, about: &Value) -> Result<Value> {
        match order {
            "world" => world(&self.mesh),
            "token" => token(&self.mesh),
            "nas" => Ok(json!(self.mesh.host("nas")?.ip4()?)),
            "lans" => Ok(json!(self.mesh.lans(text(about, "router")?)?)),
            "join" => self.join(about),
            "wait_for_lans" => done(self.mesh.wait_for_lans(&["office-pc", "home-pc"])),
            "phone_up" => self.phone_up(text(about, "file")?),
            "download_start" => self.download_start(),
            "mark" => {
                self.marked = Instant::now();
                Ok(Value::Null)
            }
            "download_cut" => self.download_cut(within(about)?),
            "phone_to_nas" => self.phone_to_nas(about["passes"] == true, within(about)?),
            _ => bail!("there is no order {order}"),
        }
    }

    /// Joins a router with the code that the page showed; the name of its board may be set to anything.
    fn join(&mut self, about: &Value) -> Result<Value> {
        let (router, code) = (text(about, "router")?, text(about, "code")?);
        if let Some(board) = about["board"].as_str() {
            self.mesh.host(router)?.write_file("/tmp/sysinfo/model", board)?;
        }
        self.mesh.configure(router)?;
        self.mesh.start_daemon(router)?;
        self.mesh.gatewrt(router, &["join", code, "--name", router])?;
        done(self.mesh.place_foreign_on_interface(router))
    }

    fn phone_up(&mut self, file: &str) -> Result<Value> {
        self.phone = Some(self.mesh.phone_with("phone", "office", file)?);
        Ok(Value::Null)
    }

    fn download_start(&mut self) -> Result<Value> {
        let (phone, nas) = (self.mesh.host("phone")?, self.mesh.host("nas")?);
        self.wait_for_nas(true, ONE_HANDSHAKE)?;
        let download = Download::start(&phone, &nas, nas.ip4()?.into())?;
        download.wait_for_progress()?;
        self.download = Some(download);
        Ok(Value::Null)
    }

    /// Waits until the download is cut, and returns the time since the mark.
    fn download_cut(&mut self, within: Duration) -> Result<Value> {
        let download = self.download.take().context("a download was started")?;
        let cut = download.wait_until_cut(self.marked, within)?;
        ensure!(!self.reaches_nas()?, "the phone still reaches the nas");
        Ok(json!({ "cut_ms": u64::try_from(cut.as_millis())? }))
    }

    fn phone_to_nas(&self, passes: bool, within: Duration) -> Result<Value> {
        done(self.wait_for_nas(passes, within))
    }

    fn wait_for_nas(&self, passes: bool, within: Duration) -> Result<()> {
        let what = format!("the phone {} the nas", if passes { "reaches" } else { "does not reach" });
        eventually(within, &what, || -> Result<()> {
            ensure!(self.reaches_nas()? == passes);
            Ok(())
        })
    }

    fn reaches_nas(&self) -> Result<bool> {
        let nas = SocketAddr::new(self.mesh.host("nas")?.ip4()?.into(), HTTP);
        connects(&self.mesh.host("phone")?, nas)
    }
}

/// URL of the page, and the CA to trust for it.
fn world(mesh: &Mesh) -> Result<Value> {
    let address = mesh.host("coordinator")?.ip4()?;
    Ok(json!({ "url": format!("https://{address}:8443"), "ca": file(mesh, "ca.crt")? }))
}

fn token(mesh: &Mesh) -> Result<Value> {
    Ok(json!(file(mesh, "admin.token")?.trim()))
}

fn file(mesh: &Mesh, name: &str) -> Result<String> {
    mesh.host("coordinator")?.read_file(&format!("{DATA}/{name}"))
}

fn done(result: Result<()>) -> Result<Value> {
    result.map(|()| Value::Null)
}

fn text<'a>(about: &'a Value, key: &str) -> Result<&'a str> {
    about[key].as_str().with_context(|| format!("no {key} in {about}"))
}

fn within(about: &Value) -> Result<Duration> {
    about["within_ms"].as_u64().map(Duration::from_millis).with_context(|| format!("no within_ms in {about}"))
}

/// Runs a story in a host's network namespace and carries out its orders. The story's own output goes to standard
/// error.
fn play(story: &str, on: &Host, mut act: impl FnMut(&str, &Value) -> Result<Value>) -> Result<()> {
    let script = repository().join("tests/browser").join(story);
    let mut teller = Teller(on.in_netns(|| node(&script).spawn())?.context("node runs")?);
    let mut answers = teller.0.stdin.take().context("a pipe")?;
    let orders = BufReader::new(teller.0.stdout.take().context("a pipe")?);
    for line in orders.lines() {
        let line = line?;
        let about: Value = serde_json::from_str(&line).with_context(|| format!("no order: {line}"))?;
        let answer = match act(text(&about, "order")?, &about) {
            Ok(value) => json!({ "value": value }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        // A story that reads no more has ended: its exit status is checked below.
        let _ = writeln!(answers, "{answer}");
    }
    let status = teller.0.wait()?;
    if status.success() { Ok(()) } else { Err(anyhow!("{story}: {status}; what it said is above")) }
}

fn node(script: &Path) -> Command {
    let mut node = Command::new("node");
    node.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    node
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The story's process; it is killed on drop.
struct Teller(Child);

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

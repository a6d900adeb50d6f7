//! A router's root folder to install packages in: busybox, stand-ins for OpenWrt's own scripts (tests/openwrt), and a
//! package manager that works as opkg does. Scripts run in a `chroot`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

pub const ARCH: &str = "x86_64";
const CONFFILE: &str = "/etc/config/gatewrt";
const INFO: &str = "/usr/lib/opkg/info";
/// Maintainer scripts that opkg runs.
const SCRIPTS: [&str; 5] = ["postinst", "postinst-pkg", "prerm", "prerm-pkg", "postrm"];

/// Files by path: mode and content, or the target of a link.
pub type Files = BTreeMap<String, String>;

pub struct Router {
    root: PathBuf,
}

impl Router {
    /// Creates a router with OpenWrt's default firewall of a LAN and a WAN.
    pub fn new() -> Result<Self> {
        let root = scratch()?;
        let router = Self { root };
        for folder in
            ["bin", "sbin", "tmp", "etc/rc.d", "etc/config", "lib/functions", "usr/lib/opkg/info", "dev"]
        {
            fs::create_dir_all(router.root.join(folder))?;
        }
        run(Command::new("sh")
            .args(["-c", "cp \"$(command -v busybox-static)\" \"$1/bin/busybox\"", "sh"])
            .arg(&router.root))?;
        run(Command::new("cp").arg("-R").arg(here("../tests/openwrt/.")).arg(&router.root))?;
        router.shell("/bin/busybox --install -s /bin")?;
        router.write_program("/etc/init.d/firewall", "firewall")?;
        router.write("/dev/null", "")?;
        router.write("/etc/config/firewall", FIREWALL)?;
        Ok(router)
    }

    pub fn install(&self, ipk: &Path) -> Result<()> {
        self.unpack(ipk)?;
        self.script("postinst", "")
    }

    pub fn upgrade(&self, ipk: &Path) -> Result<()> {
        self.script("prerm", "PKG_UPGRADE=1")?;
        self.unpack(ipk)?;
        self.script("postinst", "PKG_UPGRADE=1")
    }

    /// Removes the package; a configuration that was edited stays.
    pub fn remove(&self) -> Result<()> {
        self.script("prerm", "")?;
        let unedited = self.read(&format!("{INFO}/conffile"))? == self.read(CONFFILE)?;
        let listed = self.read(&format!("{INFO}/gatewrt.list"))?;
        for path in listed.lines().filter(|path| *path != CONFFILE || unedited) {
            let _ = fs::remove_file(self.at(path));
        }
        let postrm = self.script("postrm", "");
        fs::remove_dir_all(self.at(INFO))?;
        fs::create_dir(self.at(INFO))?;
        postrm
    }

    fn unpack(&self, ipk: &Path) -> Result<()> {
        let info = self.at(INFO);
        let edited = fs::read(self.at(CONFFILE)).ok();
        run(Command::new("tar").arg("-C").arg(&info).arg("-xzf").arg(ipk))?;
        run(Command::new("tar").arg("-C").arg(&info).arg("-xzf").arg(info.join("control.tar.gz")))?;
        run(Command::new("tar").arg("-C").arg(&self.root).arg("-xzf").arg(info.join("data.tar.gz")))?;
        fs::copy(self.at(CONFFILE), info.join("conffile"))?;
        if let Some(edited) = edited {
            fs::write(self.at(CONFFILE), edited)?;
        }
        for script in SCRIPTS {
            fs::rename(info.join(script), info.join(format!("gatewrt.{script}")))?;
        }
        let listed = run(Command::new("tar").arg("-tzf").arg(info.join("data.tar.gz")))?;
        let files = listed.lines().filter(|path| !path.ends_with('/')).map(|path| &path[1..]);
        fs::write(info.join("gatewrt.list"), files.map(|path| format!("{path}\n")).collect::<String>())?;
        Ok(())
    }

    fn script(&self, name: &str, environment: &str) -> Result<()> {
        self.shell(&format!("{environment} {INFO}/gatewrt.{name}")).map(drop)
    }

    pub fn shell(&self, script: &str) -> Result<String> {
        let mut chroot = Command::new("chroot");
        chroot.arg(&self.root).args(["/bin/busybox", "ash", "-c", script]);
        run(chroot.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    }

    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.at(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(fs::write(path, text)?)
    }

    /// Writes a program that only records its calls.
    fn write_program(&self, path: &str, name: &str) -> Result<()> {
        self.write(path, &recorder(name))?;
        Ok(fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755))?)
    }

    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.at(path)).with_context(|| path.to_owned())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// Recorded calls since the last look.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.read("/tmp/calls").unwrap_or_default();
        let _ = fs::remove_file(self.at("/tmp/calls"));
        calls.lines().map(str::to_owned).collect()
    }

    /// The last service description that procd got.
    pub fn procd(&self) -> Result<Value> {
        let told = self.read("/tmp/procd.json")?;
        serde_json::from_str(&told).context(told)
    }

    /// All files that outlive a reboot, without busybox and the package manager's own.
    pub fn files(&self) -> Result<Files> {
        let find = "find . \\( -path ./bin -o -path ./tmp -o -path ./usr/lib -o -path ./dev \\) -prune -o ! -type d -print";
        let listed = run(Command::new("sh").args(["-c", find]).current_dir(&self.root))?;
        let described = |path: &str| Ok((path[1..].to_owned(), describe(&self.root.join(path))?));
        listed.lines().map(described).collect()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Builds packages of a program that only records its calls, in a folder of their own.
pub fn packages() -> Result<PathBuf> {
    let dist = scratch()?;
    let program = dist.join(ARCH).join("gatewrt");
    fs::create_dir_all(program.parent().context("a folder")?)?;
    fs::write(&program, recorder("${0##*/}"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    run(Command::new(here("../openwrt-package/build")).arg(ARCH).env("DIST", &dist))?;
    Ok(dist)
}

pub fn ipk(dist: &Path) -> PathBuf {
    dist.join(format!("gatewrt_0.1.0-1_{ARCH}.ipk"))
}

/// A path as seen from this package's folder.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    ensure!(said.is_empty(), "{command:?} complains: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn recorder(name: &str) -> String {
    format!("#!/bin/sh\necho \"{name} $*\" >>/tmp/calls\n")
}

fn describe(path: &Path) -> Result<String> {
    if path.is_symlink() {
        return Ok(format!("-> {}", fs::read_link(path)?.display()));
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    Ok(format!("{mode:o} {}", String::from_utf8_lossy(&fs::read(path)?)))
}

fn scratch() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("gatewrt-package-{}-{number}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(path)
}

const FIREWALL: &str = "\
config defaults
\toption input 'REJECT'

config zone
\toption name 'lan'
\tlist network 'lan'

config zone
\toption name 'wan'
\tlist network 'wan'
\toption masq '1'

config forwarding
\toption src 'lan'
\toption dest 'wan'
";

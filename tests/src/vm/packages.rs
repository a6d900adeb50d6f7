//! Debian's packages for a machine, as `tests/bootstrap vm` unpacked them: kernel, modules, programs and their libraries.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Unpacked packages of one architecture.
pub struct Packages {
    root: PathBuf,
}

impl Packages {
    /// Opens the packages of one of Debian's architectures.
    pub fn of(architecture: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/vm").join(architecture);
        let root = root.canonicalize();
        Ok(Self {
            root: root.with_context(|| format!("no packages for {architecture}: run tests/bootstrap vm"))?,
        })
    }

    /// Path of a package's file on this machine, by its path on the emulated one.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Reads a file of a package.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.file(path);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Path of the kernel.
    pub fn kernel(&self) -> Result<PathBuf> {
        only(&self.file("boot"), "vmlinuz-")
    }

    /// Modules of these names with all that they need, in an order in which they can be loaded. Modules that are built
    /// into the kernel are left out.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let folder = only(&self.file("lib/modules"), "")?;
        let read =
            |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| format!("read {name}"));
        let modules = load_order(&read("modules.dep")?, &read("modules.builtin")?, names)?;
        Ok(modules.iter().map(|module| folder.join(module)).collect())
    }

    /// Shared libraries that programs need, and their loader, by their paths on the machine.
    pub fn libraries(&self, programs: &[&str]) -> Result<Vec<String>> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut open: Vec<String> = programs.iter().map(|program| (*program).to_owned()).collect();
        while let Some(path) = open.pop() {
            for name in
                self.needed(&path)?.into_iter().filter(|name| !found.contains_key(name)).collect::<Vec<_>>()
            {
                let library = if name.starts_with('/') { name.clone() } else { self.library(&name)? };
                open.push(library.clone());
                found.insert(name, library);
            }
        }
        Ok(found.into_values().collect())
    }

    fn needed(&self, path: &str) -> Result<Vec<String>> {
        let output = Command::new("readelf").args(["-dl", "--wide"]).arg(self.file(path)).output()?;
        ensure!(output.status.success(), "readelf {path}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let library = |line: &str| {
            let (_, name) = line.split_once("Shared library: [").or(line.split_once("interpreter: "))?;
            Some(name.trim_end_matches(']').to_owned())
        };
        Ok(text.lines().filter_map(library).collect())
    }

    fn library(&self, name: &str) -> Result<String> {
        for parent in ["lib", "usr/lib"] {
            for folder in std::fs::read_dir(self.file(parent)).into_iter().flatten().flatten() {
                if folder.path().join(name).is_file() {
                    return Ok(format!("/{parent}/{}/{name}", folder.file_name().to_string_lossy()));
                }
            }
        }
        bail!("no package holds {name}: look at the list in tests/bootstrap")
    }
}

/// Single entry of a folder with this prefix; none or several are an error.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let found = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    ensure!(found.len() == 1, "{} of {prefix}* in {}, not one", found.len(), folder.display());
    Ok(found[0].clone())
}

/// Sorts modules so that each is loaded after those it needs. `depmod` lists each module with all that it needs; the
/// last of that list is loaded first.
fn load_order(dependencies: &str, builtin: &str, names: &[&str]) -> Result<Vec<String>> {
    let modules: BTreeMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs)))
        .collect();
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| !builtin.contains(**name)) {
        let (path, needs) =
            modules.get(*name).with_context(|| format!("this kernel has no module {name}"))?;
        let before = needs.split_whitespace().rev();
        for path in before.chain([*path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/net/nf_nat.ko: kernel/net/nf_conntrack.ko kernel/lib/libcrc32c.ko\n\
        kernel/net/nf_conntrack.ko: kernel/lib/libcrc32c.ko\nkernel/lib/libcrc32c.ko:\nkernel/net/nft-ct.ko:\n";

    #[test]
    fn what_is_needed_is_loaded_first_and_once() {
        let order =
            load_order(DEPENDENCIES, "kernel/net/ipv6.ko\n", &["nf_conntrack", "ipv6", "nf_nat", "nft_ct"]);
        let names: Vec<String> = order.expect("an order").iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["libcrc32c", "nf_conntrack", "nf_nat", "nft_ct"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = load_order(DEPENDENCIES, "", &["wireguard"]).expect_err("there is none");
        assert!(error.to_string().contains("no module wireguard"), "{error}");
    }
}

//! Root file system that a machine boots from, as the kernel unpacks it (cpio's format `newc`, Linux
//! `Documentation/driver-api/early-userspace/buffer-format.rst`). Pure, but for reading files.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;

/// A tree under construction. Parent folders are added by themselves.
#[derive(Clone, Default)]
pub struct Initramfs {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl Initramfs {
    /// Adds an empty folder.
    pub fn folder(&mut self, path: &str) -> &mut Self {
        self.add(path, FOLDER, (0, 0), Vec::new())
    }

    /// Adds a file with its permissions.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.add(path, FILE | mode, (0, 0), content.into())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(path, LINK, (0, 0), target.into())
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        self.add(path, DEVICE, (major, minor), Vec::new())
    }

    /// Adds a tree of this machine's files, with their permissions.
    pub fn tree(&mut self, at: &str, from: &Path) -> Result<&mut Self> {
        for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
            let (entry, path) = entry.map(|entry| (entry.path(), Path::new(at).join(entry.file_name())))?;
            let path = path.to_str().context("a name in UTF-8")?;
            let about = std::fs::symlink_metadata(&entry)?;
            if about.is_symlink() {
                self.link(path, std::fs::read_link(&entry)?.to_str().context("a name in UTF-8")?);
            } else if about.is_dir() {
                self.folder(path).tree(path, &entry)?;
            } else {
                self.file(path, about.permissions().mode() & 0o7777, std::fs::read(&entry)?);
            }
        }
        Ok(self)
    }

    /// Builds the archive, uncompressed.
    pub fn build(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            append(&mut archive, number, &path.to_string_lossy(), entry);
        }
        append(&mut archive, 0, "TRAILER!!!", &Entry { mode: 0, device: (0, 0), content: Vec::new() });
        archive
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), content: Vec<u8>) -> &mut Self {
        let path = Path::new(path.trim_start_matches('/'));
        for above in path.ancestors().skip(1).filter(|above| *above != Path::new("")) {
            let folder = Entry { mode: FOLDER, device: (0, 0), content: Vec::new() };
            self.entries.entry(above.to_owned()).or_insert(folder);
        }
        self.entries.insert(path.to_owned(), Entry { mode, device, content });
        self
    }
}

/// Appends an entry: magic number, thirteen fields of eight hexadecimal digits, and name; then the content. Both parts
/// are padded to a multiple of four bytes.
fn append(archive: &mut Vec<u8>, number: usize, name: &str, entry: &Entry) {
    let Entry { mode, device: (major, minor), content } = entry;
    let (size, length) = (content.len(), name.len() + 1);
    let header = format!(
        "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{major:08x}{minor:08x}{length:08x}{0:08x}",
        0, 1
    );
    for part in [format!("{header}{name}\0").as_bytes(), content] {
        archive.extend_from_slice(part);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_reads() {
        let archive = Initramfs::default().file("/bin/sh", 0o755, "abc").build();
        let text = String::from_utf8(archive.clone()).expect("text");
        let folder = text.find("bin\0").expect("the folder comes by itself");
        let file = text.find("bin/sh\0").expect("the file");
        assert!(folder < file && text.starts_with("070701") && archive.len() % 4 == 0);
        assert_eq!(&text[file - 110..file - 110 + 22], "07070100000002000081ed");
        assert_eq!(&text[file + 10..file + 20], "abc\x00070701", "the name ends at a multiple of four");
    }
}

//! Settings that were last usable, on disk beside the keys. They take the place of what an error in the configuration
//! file has made unusable, so that a router is in its networks after a reboot, too.

use super::{Config, DEFAULT_FILE, Warning, uci};
use crate::atomic_file;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Name of the file, in the state directory: UCI text, and no network's name, as it has a “_”.
const FILE: &str = "last_config";

/// Configuration of a router, with its settings in the form in which they are kept.
pub struct Loaded {
    /// The configuration, with a warning for each setting that is not in effect.
    pub config: Config,
    /// UCI text of what is in effect.
    used: Vec<u8>,
    file: PathBuf,
}

impl Config {
    /// Reads the configuration in `file`. What is wrong with it is among its warnings.
    pub fn load(file: &Path) -> Self {
        load(file).config
    }
}

/// Reads the configuration in `file`, for a daemon that keeps what is usable. A missing file is the default
/// configuration, if there was none before.
pub fn load(file: &Path) -> Loaded {
    let name = file.display().to_string();
    let read = fs::read(file);
    let bytes = read.as_deref().unwrap_or_default();
    // The file tells where its last usable settings are; where it does not, they are in the usual place.
    let places = [Config::read(&name, bytes, &[]).0.state_dir, Config::default().state_dir];
    let before = places.iter().find_map(|dir| fs::read(dir.join(FILE)).ok()).unwrap_or_default();
    let before = uci::parse(&before).sections;
    let why = match &read {
        Ok(bytes) if bytes.is_empty() => Some("is empty".to_owned()),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".to_owned()),
        Err(error) => Some(format!("can't be read: {error}")),
    };
    let is_known = read.is_ok() || matches!(&read, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let Some(why) = why.filter(|_| !before.is_empty() || !is_known) else {
        let (config, used) = Config::read(&name, bytes, &before);
        return Loaded { config, used: uci::text(&used).into_bytes(), file: file.to_owned() };
    };
    let used = uci::text(&before).into_bytes();
    let mut config = Config::read(&name, &used, &before).0;
    let what = format!("{why}; what was usable before stays");
    config.warnings = vec![Warning { file: name, line: 0, what, skipped: false, network: None }];
    Loaded { config, used, file: file.to_owned() }
}

impl Loaded {
    /// Keeps what is usable on disk, if it is not there yet. It is of use to a router in a network only: one that
    /// `is_member` of none keeps nothing.
    pub fn keep(&self, is_member: bool) -> io::Result<()> {
        let usual = Config::default().state_dir;
        let is_elsewhere = self.config.state_dir != usual;
        keep(&self.config.state_dir, &self.used, is_member)?;
        // The option that says where the state is may be the one that can't be read.
        match is_elsewhere && self.file == Path::new(DEFAULT_FILE) {
            true => keep(&usual, &self.used, is_member),
            false => Ok(()),
        }
    }
}

fn keep(dir: &Path, used: &[u8], is_member: bool) -> io::Result<()> {
    let path = dir.join(FILE);
    let there = fs::read(&path).ok();
    match there {
        Some(_) if !is_member || used.is_empty() => fs::remove_file(&path),
        None if !is_member || used.is_empty() => Ok(()),
        Some(there) if there == used => Ok(()),
        _ => atomic_file::write(&path, &mut |file| file.write_all(used)),
    }
}

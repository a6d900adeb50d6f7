//! One section of a UCI file, read option by option; every refusal says file, line, option and what is allowed.

use super::{
    ConfigError, Warning,
    uci::{Entry, Section},
};
use crate::gather::Gather;
use gatewrt_protocol::{JoinCode, NetworkName};

/// A value from its text; `None` when it is none.
pub(super) type Read<T> = fn(&str) -> Option<T>;

/// A section being read: options leave it as they are understood, what remains is unknown.
pub(super) struct Options<'a> {
    pub(super) file: &'a str,
    pub(super) section: Section,
}

impl Options<'_> {
    /// The value of an option; `None` when it is absent or empty.
    pub(super) fn one<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: Read<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.single(key, allowed)?.map(|entry| self.read(&entry, allowed, read)).transpose()
    }

    /// Puts the value of an option, if there is one, in its place.
    pub(super) fn set<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: Read<T>,
        place: &mut T,
    ) -> Result<(), ConfigError> {
        if let Some(value) = self.one(key, allowed, read)? {
            *place = value;
        }
        Ok(())
    }

    /// The items of a list; one `option` is a list of one.
    pub(super) fn many<T>(&mut self, key: &str, allowed: &str, read: Read<T>) -> Result<Vec<T>, ConfigError> {
        self.take(key).iter().map(|entry| self.read(entry, allowed, read)).collect()
    }

    /// Where an option is, for what is wrong with it as a whole; the section where it is absent.
    pub(super) fn line_of(&self, key: &str) -> u32 {
        let entry = self.section.entries.iter().find(|entry| entry.key == key);
        entry.map_or(self.section.line, |entry| entry.line)
    }

    /// Unlike other values a join code is never repeated in a message: it holds a secret.
    pub(super) fn join_code(&mut self, network: &NetworkName) -> Result<Option<JoinCode>, ConfigError> {
        let Some(entry) = self.take("join_code").pop().filter(|entry| !entry.value.is_empty()) else {
            return Ok(None);
        };
        let bad =
            |what: &str| self.bad_entry(&entry, what, "a join code for this network, or no such option");
        let code = entry.value.parse::<JoinCode>().map_err(|error| bad(&error.to_string()))?;
        if code.network == *network {
            Ok(Some(code))
        } else {
            Err(bad(&format!("this code is for network {}", code.network)))
        }
    }

    pub(super) fn network_name(&self) -> Result<NetworkName, ConfigError> {
        let allowed =
            "config network '<name>' with 1 to 12 characters of a-z, 0-9 and “_” (which stands for “-”)";
        let name = self.section.name.as_deref().unwrap_or_default().replace('_', "-");
        name.parse().map_err(|_| {
            self.bad(self.section.line, self.place(), "a network's name is missing or unsound", allowed)
        })
    }

    pub(super) fn only_once(&self, earlier: Option<u32>) -> Result<(), ConfigError> {
        let twice =
            || self.bad(self.section.line, self.place(), "a second section of this name", "one of them");
        earlier.map_or(Ok(()), |_| Err(twice()))
    }

    pub(super) fn unknown_section(&mut self) -> Warning {
        self.section.entries.clear();
        self.warning(self.section.line, format!("{}: unknown type of section, skipped", self.place()))
    }

    pub(super) fn unknown_options(self) -> Vec<Warning> {
        let warn = |entry: &Entry| {
            self.warning(entry.line, format!("{}: unknown here, skipped", entry_place(entry)))
        };
        self.section.entries.iter().map(warn).gather()
    }

    fn take(&mut self, key: &str) -> Vec<Entry> {
        self.section.entries.extract_if(.., |entry| entry.key == key).gather()
    }

    /// Of several the last counts, as in libuci, and an empty value is none.
    fn single(&mut self, key: &str, allowed: &str) -> Result<Option<Entry>, ConfigError> {
        match self.take(key).pop().filter(|entry| !entry.value.is_empty()) {
            Some(entry) if entry.list => {
                Err(self.bad_entry(&entry, "a list, where one value is expected", allowed))
            }
            entry => Ok(entry),
        }
    }

    fn read<T>(&self, entry: &Entry, allowed: &str, read: Read<T>) -> Result<T, ConfigError> {
        read(&entry.value).ok_or_else(|| self.unusable(entry, allowed))
    }

    fn unusable(&self, entry: &Entry, allowed: &str) -> ConfigError {
        let shown: String = entry.value.chars().take(60).collect();
        self.bad_entry(entry, &format!("“{shown}” can't be used"), allowed)
    }

    fn bad_entry(&self, entry: &Entry, what: &str, allowed: &str) -> ConfigError {
        self.bad(entry.line, entry_place(entry), what, allowed)
    }

    pub(super) fn bad(&self, line: u32, place: String, what: &str, allowed: &str) -> ConfigError {
        let (what, allowed) = (what.to_owned(), allowed.to_owned());
        ConfigError::Bad { file: self.file.to_owned(), line, place: Some(place), what, allowed }
    }

    fn warning(&self, line: u32, what: String) -> Warning {
        Warning { file: self.file.to_owned(), line, what }
    }

    pub(super) fn place(&self) -> String {
        let Section { kind, name, .. } = &self.section;
        name.as_ref().map_or_else(|| format!("config {kind}"), |name| format!("config {kind} '{name}'"))
    }
}

fn entry_place(entry: &Entry) -> String {
    format!("{} {}", if entry.list { "list" } else { "option" }, entry.key)
}

//! One section of a UCI file, read option by option; every refusal says file, line, option and what is allowed.

use super::{
    BOOL, ConfigError, Warning, boolean, number,
    uci::{Entry, Section},
};
use crate::gather::{Gather, append};
use gatewrt_protocol::{JoinCode, NetworkName};

/// Takes a value from its text; `false` when it is none.
pub(super) type Take<'a> = &'a mut dyn FnMut(&str) -> bool;

/// Puts a value in its place, if there is one.
pub(super) fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let is_one = value.is_some();
    value.into_iter().for_each(|value| *place = value);
    is_one
}

/// Adds a value to a list, if there is one.
pub(super) fn add<T>(list: &mut Vec<T>, value: Option<T>) -> bool {
    let is_one = value.is_some();
    append(list, value);
    is_one
}

/// A section being read: options leave it as they are understood, what remains is unknown.
pub(super) struct Options<'a> {
    pub(super) section: Section,
    file: &'a str,
    /// What is wrong first. What is read after that is not used.
    wrong: Option<ConfigError>,
}

impl<'a> Options<'a> {
    pub(super) fn new(file: &'a str, section: Section) -> Self {
        Self { section, file, wrong: None }
    }

    /// The end of the section: what was wrong, or what was not understood.
    pub(super) fn finish(self) -> Result<Vec<Warning>, ConfigError> {
        let warn = |entry: &Entry| {
            self.warning(entry.line, format!("{}: unknown here, skipped", entry_place(entry)))
        };
        let warnings = self.section.entries.iter().map(warn).gather();
        self.wrong.map_or(Ok(warnings), Err)
    }

    /// The value of an option, unless it is absent or empty.
    pub(super) fn one(&mut self, key: &str, allowed: &str, take: Take<'_>) {
        // Of several the last counts, as in libuci.
        let Some(entry) = self.take(key).pop().filter(|entry| !entry.value.is_empty()) else { return };
        if entry.list {
            self.fail_at(&entry, "a list, where one value is expected", allowed);
        } else {
            self.read(&entry, allowed, take);
        }
    }

    /// The items of a list; one `option` is a list of one.
    pub(super) fn many(&mut self, key: &str, allowed: &str, take: Take<'_>) {
        for entry in self.take(key) {
            self.read(&entry, allowed, take);
        }
    }

    /// One that is on or off.
    pub(super) fn flag(&mut self, key: &str, place: &mut bool) {
        self.one(key, BOOL, &mut |text| put(place, boolean(text)));
    }

    /// A number that `fits`.
    pub(super) fn number(&mut self, key: &str, allowed: &str, fits: fn(u32) -> bool, place: &mut u32) {
        self.one(key, allowed, &mut |text| put(place, number(text).filter(|number| fits(*number))));
    }

    /// Where an option is, for what is wrong with it as a whole; the section where it is absent.
    pub(super) fn line_of(&self, key: &str) -> u32 {
        let entry = self.section.entries.iter().find(|entry| entry.key == key);
        entry.map_or(self.section.line, |entry| entry.line)
    }

    /// Unlike other values a join code is never repeated in a message: it holds a secret.
    pub(super) fn join_code(&mut self, network: &NetworkName) -> Option<JoinCode> {
        let entry = self.take("join_code").pop().filter(|entry| !entry.value.is_empty())?;
        let what = match entry.value.parse::<JoinCode>() {
            Ok(code) if code.network == *network => return Some(code),
            Ok(code) => format!("this code is for network {}", code.network),
            Err(error) => error.to_string(),
        };
        self.fail_at(&entry, &what, "a join code for this network, or no such option");
        None
    }

    pub(super) fn network_name(&mut self) -> Option<NetworkName> {
        let allowed =
            "config network '<name>' with 1 to 12 characters of a-z, 0-9 and “_” (which stands for “-”)";
        let name = self.name().parse().ok();
        if name.is_none() {
            self.fail_here("a network's name is missing or unsound", allowed);
        }
        name
    }

    /// The section's name, with “-” where it has “_”.
    pub(super) fn name(&self) -> String {
        self.section.name.as_deref().unwrap_or_default().replace('_', "-")
    }

    pub(super) fn only_once(&mut self, is_second: bool) {
        if is_second {
            self.fail_here("a second section of this name", "one of them");
        }
    }

    pub(super) fn unknown_section(&mut self) -> Warning {
        self.section.entries.clear();
        self.warning(self.section.line, format!("{}: unknown type of section, skipped", self.place()))
    }

    /// The section can't be used as it is.
    pub(super) fn fail_here(&mut self, what: &str, allowed: &str) {
        self.fail(self.section.line, self.place(), what, allowed);
    }

    pub(super) fn fail(&mut self, line: u32, place: String, what: &str, allowed: &str) {
        if self.wrong.is_none() {
            self.wrong = Some(bad(self.file, line, Some(place), what, allowed));
        }
    }

    fn take(&mut self, key: &str) -> Vec<Entry> {
        self.section.entries.extract_if(.., |entry| entry.key == key).gather()
    }

    fn read(&mut self, entry: &Entry, allowed: &str, take: Take<'_>) {
        if !take(&entry.value) {
            let shown: String = entry.value.chars().take(60).collect();
            self.fail_at(entry, &format!("“{shown}” can't be used"), allowed);
        }
    }

    fn fail_at(&mut self, entry: &Entry, what: &str, allowed: &str) {
        self.fail(entry.line, entry_place(entry), what, allowed);
    }

    fn warning(&self, line: u32, what: String) -> Warning {
        Warning { file: self.file.to_owned(), line, what }
    }

    fn place(&self) -> String {
        let Section { kind, name, .. } = &self.section;
        name.as_ref().map_or_else(|| format!("config {kind}"), |name| format!("config {kind} '{name}'"))
    }
}

/// What is wrong in a file.
pub(super) fn bad(file: &str, line: u32, place: Option<String>, what: &str, allowed: &str) -> ConfigError {
    ConfigError::Bad {
        file: file.to_owned(),
        line,
        place,
        what: what.to_owned(),
        allowed: allowed.to_owned(),
    }
}

fn entry_place(entry: &Entry) -> String {
    format!("{} {}", if entry.list { "list" } else { "option" }, entry.key)
}

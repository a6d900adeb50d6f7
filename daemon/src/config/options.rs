//! Reader of one section of a UCI file, option by option; every refusal names file, line, option and the allowed
//! values.

use super::{
    BOOL, ConfigError, Warning, boolean, number,
    uci::{Entry, Section},
};
use gatewrt_protocol::{JoinCode, NetworkName};

/// Function that takes an option's value from its text; returns `false` when the text is no such value.
pub(super) type Take<'a> = &'a mut dyn FnMut(&str) -> bool;

/// Puts the parsed value of an option in its place; false if there is none.
pub(super) fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let is_one = value.is_some();
    value.into_iter().for_each(|value| *place = value);
    is_one
}

/// Adds the parsed value of an option to a list; false if there is none.
pub(super) fn add<T>(list: &mut Vec<T>, value: Option<T>) -> bool {
    let is_one = value.is_some();
    list.extend(value);
    is_one
}

/// Section of a UCI file while it is read: options leave it as they are understood, what remains is unknown.
pub(super) struct Options<'a> {
    pub(super) section: Section,
    file: &'a str,
    /// First fault. Nothing read after it is used.
    wrong: Option<ConfigError>,
}

impl<'a> Options<'a> {
    pub(super) fn new(file: &'a str, section: Section) -> Self {
        Self { section, file, wrong: None }
    }

    /// Ends the reading of a section with its first fault, or else with a warning for each option that nothing has
    /// read.
    pub(super) fn finish(self) -> Result<Vec<Warning>, ConfigError> {
        let warn = |entry: &Entry| {
            self.warning(entry.line, format!("{}: unknown here, skipped", entry_place(entry)))
        };
        let warnings = self.section.entries.iter().map(warn).collect();
        self.wrong.map_or(Ok(warnings), Err)
    }

    /// Reads the value of an option, unless it is absent or empty.
    pub(super) fn one(&mut self, key: &str, allowed: &str, take: Take<'_>) {
        // The last of several values counts, as in libuci.
        let Some(entry) = self.take(key).pop().filter(|entry| !entry.value.is_empty()) else { return };
        if entry.list {
            self.fail_at(&entry, "a list, where one value is expected", allowed);
        } else {
            self.read(&entry, allowed, take);
        }
    }

    /// Reads the items of a `list` option; one `option` is a list of one.
    pub(super) fn many(&mut self, key: &str, allowed: &str, take: Take<'_>) {
        for entry in self.take(key) {
            self.read(&entry, allowed, take);
        }
    }

    /// Reads an option that is on or off into `place`.
    pub(super) fn flag(&mut self, key: &str, place: &mut bool) {
        self.one(key, BOOL, &mut |text| put(place, boolean(text)));
    }

    /// Reads an option that is a number which `fits` accepts.
    pub(super) fn number(&mut self, key: &str, allowed: &str, fits: fn(u32) -> bool, place: &mut u32) {
        self.one(key, allowed, &mut |text| put(place, number(text).filter(|number| fits(*number))));
    }

    /// Line of an option in the file, for faults of it as a whole; the section's line if the option is absent.
    pub(super) fn line_of(&self, key: &str) -> u32 {
        let entry = self.section.entries.iter().find(|entry| entry.key == key);
        entry.map_or(self.section.line, |entry| entry.line)
    }

    /// Reads the join code of a network. Unlike other values it is never repeated in a message: it holds a secret.
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

    /// Name of the section that is read, with “-” where it has “_”.
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

    /// Records a fault of the section that is read, which can't be used as it is.
    pub(super) fn fail_here(&mut self, what: &str, allowed: &str) {
        self.fail(self.section.line, self.place(), what, allowed);
    }

    pub(super) fn fail(&mut self, line: u32, place: String, what: &str, allowed: &str) {
        if self.wrong.is_none() {
            self.wrong = Some(bad(self.file, line, Some(place), what, allowed));
        }
    }

    fn take(&mut self, key: &str) -> Vec<Entry> {
        self.section.entries.extract_if(.., |entry| entry.key == key).collect()
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

/// Error for a setting in a configuration file that can't be used.
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

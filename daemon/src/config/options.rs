//! Reader of one section of a UCI file, option by option. What can't be used costs that option alone: its last usable
//! value takes its place, or else its default. Every fault names file, line, option and the allowed values.

use super::{
    BOOL, Warning, boolean, number,
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
    /// Options of the section when they were last usable; `None` where it is new.
    before: Option<&'a [Entry]>,
    /// Options that were used.
    used: Vec<Entry>,
    faults: Vec<Warning>,
    /// Network that the section is about.
    pub(super) network: Option<NetworkName>,
}

impl<'a> Options<'a> {
    pub(super) fn new(file: &'a str, section: Section, before: Option<&'a [Entry]>) -> Self {
        Self { section, file, before, used: Vec::new(), faults: Vec::new(), network: None }
    }

    /// Ends the reading of a section: its options that were used, and its faults, with a warning for each option that
    /// nothing has read.
    pub(super) fn finish(mut self) -> (Section, Vec<Warning>) {
        for entry in std::mem::take(&mut self.section.entries) {
            let what = format!("{}: unknown here, skipped", entry_place(&entry));
            self.warn(entry.line, what, true);
        }
        (Section { entries: self.used, ..self.section }, self.faults)
    }

    /// Reads the value of an option, unless it is absent or empty. False if the section may have had a value that can't
    /// be used, and has no usable one from before.
    pub(super) fn one(&mut self, key: &str, allowed: &str, take: Take<'_>) -> bool {
        // The last of several values counts, as in libuci.
        let entry = self.take(key).pop().filter(|entry| !entry.value.trim_ascii().is_empty());
        let Some(entry) = entry else {
            return !self.section.damaged || self.again(key, take) || self.before.is_some();
        };
        if !entry.list && self.try_take(&entry, take) {
            return true;
        }
        let is_again = self.again(key, take);
        if entry.list {
            self.fail_at(&entry, "a list, where one value is expected", allowed, is_again);
        } else {
            self.unusable(&entry, allowed, is_again);
        }
        is_again
    }

    /// Reads the items of a `list` option; one `option` is a list of one. An item that can't be used is left out, and
    /// makes the answer false.
    pub(super) fn many(&mut self, key: &str, allowed: &str, take: Take<'_>) -> bool {
        let entries = self.take(key);
        if entries.is_empty() && self.section.damaged {
            return self.again(key, take);
        }
        let (mut bad, mut is_any) = (Vec::new(), false);
        for entry in entries.into_iter().filter(|entry| !entry.value.trim_ascii().is_empty()) {
            if self.try_take(&entry, take) { is_any = true } else { bad.push(entry) }
        }
        let is_again = !bad.is_empty() && !is_any && self.again(key, take);
        bad.iter().for_each(|entry| self.unusable(entry, allowed, is_again));
        bad.is_empty()
    }

    /// Reads the last usable values of an option, in place of those in the file; false if there are none.
    pub(super) fn again(&mut self, key: &str, take: Take<'_>) -> bool {
        self.used.retain(|entry| entry.key != key);
        let mut is_any = false;
        for entry in self.before.unwrap_or_default().iter().filter(|entry| entry.key == key) {
            is_any |= self.try_take(entry, take);
        }
        is_any
    }

    /// Counts the values of options as they were before as used, in place of those in the file; true if there are none.
    pub(super) fn put_back(&mut self, keys: &[&str]) -> bool {
        let is_one = |entry: &Entry| keys.contains(&entry.key.as_str());
        self.used.retain(|entry| !is_one(entry));
        let count = self.used.len();
        self.used.extend(self.before.unwrap_or_default().iter().filter(|entry| is_one(entry)).cloned());
        self.used.len() == count
    }

    /// Reads an option that is on or off into `place`.
    pub(super) fn flag(&mut self, key: &str, place: &mut bool) {
        self.one(key, BOOL, &mut |text| put(place, boolean(text)));
    }

    /// Reads an option that opens something. Off if it can't be told what the section says.
    pub(super) fn opening(&mut self, key: &str, place: &mut bool) {
        if !self.one(key, BOOL, &mut |text| put(place, boolean(text))) {
            *place = false;
            // It stays off until the section can be told again, also after a restart.
            let (key, value) = (key.to_owned(), "0".to_owned());
            self.used.push(Entry { line: self.section.line, key, value, list: false });
        }
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
        let what = match entry.value.trim_ascii().parse::<JoinCode>() {
            Ok(code) if code.network == *network => return Some(code),
            Ok(code) => format!("this code is for network {}", code.network),
            Err(error) => error.to_string(),
        };
        self.fail_at(&entry, &what, "a join code for this network, or no such option", false);
        None
    }

    pub(super) fn network_name(&mut self) -> Option<NetworkName> {
        let allowed =
            "config network '<name>' with 1 to 12 characters of a-z, 0-9 and “_” (which stands for “-”)";
        self.network = self.name().parse().ok();
        if self.network.is_none() {
            self.fail_here("a network's name is missing or unsound", allowed);
        }
        self.network.clone()
    }

    /// Name of the section that is read, with “-” where it has “_”.
    pub(super) fn name(&self) -> String {
        self.section.name.as_deref().unwrap_or_default().replace('_', "-")
    }

    /// Leaves out the section that is read, since its type is unknown.
    pub(super) fn skip(&mut self) {
        self.section.entries.clear();
        self.warn(self.section.line, format!("{}: unknown type of section, skipped", self.place()), true);
    }

    /// Records a fault of the section that is read, which can't be used as it is.
    pub(super) fn fail_here(&mut self, what: &str, allowed: &str) {
        self.fail(self.section.line, self.place(), what, allowed);
    }

    pub(super) fn fail(&mut self, line: u32, place: String, what: &str, allowed: &str) {
        self.warn(line, format!("{place}: {what}; allowed: {allowed}"), false);
    }

    fn take(&mut self, key: &str) -> Vec<Entry> {
        self.section.entries.extract_if(.., |entry| entry.key == key).collect()
    }

    fn try_take(&mut self, entry: &Entry, take: Take<'_>) -> bool {
        let is_one = take(entry.value.trim_ascii());
        self.used.extend(is_one.then(|| entry.clone()));
        is_one
    }

    fn unusable(&mut self, entry: &Entry, allowed: &str, is_again: bool) {
        // A value with a forgotten quote may go on with a secret.
        let shown: String = entry.value.chars().take_while(|c| !c.is_control()).take(60).collect();
        self.fail_at(entry, &format!("“{shown}” can't be used"), allowed, is_again);
    }

    fn fail_at(&mut self, entry: &Entry, what: &str, allowed: &str, is_again: bool) {
        let stays = if is_again { "; what was usable before stays" } else { "" };
        self.fail(entry.line, entry_place(entry), what, &format!("{allowed}{stays}"));
    }

    fn warn(&mut self, line: u32, what: String, skipped: bool) {
        let (file, network) = (self.file.to_owned(), self.network.clone());
        self.faults.push(Warning { file, line, what, skipped, network });
    }

    fn place(&self) -> String {
        let Section { kind, name, .. } = &self.section;
        name.as_ref().map_or_else(|| format!("config {kind}"), |name| format!("config {kind} '{name}'"))
    }
}

fn entry_place(entry: &Entry) -> String {
    format!("{} {}", if entry.list { "list" } else { "option" }, entry.key)
}

//! UCI's text format, bytes to sections. It ends at text: what an option means is said in [`super`].
//!
//! Reads what libuci's `file.c` reads: `package`, `config`, `option` and `list` (or their first letters), words
//! bare, in `'…'` or in `"…"`, several lines within quotes, `\` before a character or the end of a line, `#`
//! up to the end of the line, `;` between statements. Sections of one type and name are one section; an `option`
//! replaces what was said of it before, a `list` adds to it. libuci gives up a file with a fault in it; here only the
//! line with the fault is lost.

/// Text of a UCI file, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UciFile {
    /// The sections, in the order of the file.
    pub sections: Vec<Section>,
    /// Faults, each of which loses its line alone, or its section if it is in the line that begins it.
    pub faults: Vec<SyntaxError>,
    /// True if the text may have had a section that is not among `sections`.
    pub lost: bool,
}

/// Section of a UCI file: `config <kind> '<name>'` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The line it starts on, from 1.
    pub line: u32,
    /// Type of the section.
    pub kind: String,
    /// Name of the section, if it has one.
    pub name: Option<String>,
    /// Options of the section, in the order of the file.
    pub entries: Vec<Entry>,
    /// True if a line of the section was lost: an option that is missing may have been there.
    pub damaged: bool,
}

/// Entry of a section in a UCI file: an `option` or `list` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The line it starts on, from 1.
    pub line: u32,
    /// Name of the option.
    pub key: String,
    /// Value of the option.
    pub value: String,
    /// True for one item of a list.
    pub list: bool,
}

/// Fault in a line that UCI's format does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line, from 1.
    pub line: u32,
    /// Description of the fault.
    pub what: &'static str,
    /// Expected text.
    pub allowed: &'static str,
}

const STATEMENTS: &str =
    "package <name>, config <type> '<name>', option <name> '<value>' or list <name> '<value>'";
const NAME: &str = "letters, digits and “_”";

/// Parses the text of a UCI file into its sections and its faults.
pub fn parse(bytes: &[u8]) -> UciFile {
    // Editors on other systems put a mark before UTF-8 text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut file = UciFile::default();
    let mut current = None;
    let mut lexer = Lexer { bytes, at: 0, line: 1 };
    while let Some(statement) = lexer.statement() {
        let (line, begins) = (statement.line, begins_section(&statement));
        if let Err((what, allowed)) = file.take(statement, &mut current) {
            file.faults.push(SyntaxError { line, what, allowed });
            if begins || current.is_none() {
                // What follows is not to be taken for options of the section before.
                (current, file.lost) = (None, true);
            } else if let Some(section) = current.and_then(|at: usize| file.sections.get_mut(at)) {
                section.damaged = true;
            }
        }
    }
    file
}

/// Text of a UCI file with these sections, for [`parse`].
pub fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    let mut add = |parts: [&str; 3]| parts.iter().for_each(|part| text.push_str(part));
    for Section { kind, name, entries, .. } in sections {
        add(["config ", kind, " "]);
        add(["'", name.as_deref().unwrap_or_default(), "'\n"]);
        for Entry { key, value, list, .. } in entries {
            add(["\t", if *list { "list " } else { "option " }, key]);
            add([" '", &value.replace('\'', "'\\''"), "'\n"]);
        }
    }
    text
}

/// True for a statement that begins a section, be it misspelt: no other one has these letters.
fn begins_section(statement: &Statement) -> bool {
    let verb = statement.words.first().map(String::as_str).unwrap_or_default();
    verb.is_empty() || (verb != "package" && verb.contains(['c', 'f', 'g', 'C', 'F', 'G']))
}

/// True if two names of sections are the same: “_” stands for “-”.
pub fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    let plain = |name: &str| name.replace('_', "-");
    one.is_some() && one.map(plain) == other.map(plain)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Fault of a statement: what is wrong, and what is allowed.
type Wrong = (&'static str, &'static str);

struct Statement {
    line: u32,
    words: Vec<String>,
    fault: Option<Wrong>,
}

impl UciFile {
    /// Takes in one statement. `current` is the section whose options follow.
    fn take(&mut self, statement: Statement, current: &mut Option<usize>) -> Result<(), Wrong> {
        let line = statement.line;
        statement.fault.map_or(Ok(()), Err)?;
        let mut words = statement.words.into_iter();
        let (verb, first, second) = (words.next().unwrap_or_default(), words.next(), words.next());
        if words.next().is_some() {
            return Err(("too many words in one statement", "a value with spaces stands in quotes: 'a b'"));
        }
        match verb.as_str() {
            "package" | "p" => {}
            "config" | "c" => {
                let kind = first.ok_or(("“config” without a type", "config <type> '<name>'"))?;
                let name = second.filter(|name| !name.is_empty());
                let known = |it: &Section| it.kind == kind && is_same(it.name.as_deref(), name.as_deref());
                *current = Some(self.sections.iter().position(known).unwrap_or(self.sections.len()));
                if *current == Some(self.sections.len()) {
                    self.sections.push(Section { line, kind, name, entries: Vec::new(), damaged: false });
                }
            }
            "option" | "o" | "list" | "l" => {
                let key = first
                    .filter(|key| is_name(key))
                    .ok_or(("an option's name is missing or unsound", NAME))?;
                let Some(section) = current.and_then(|at| self.sections.get_mut(at)) else {
                    let before = ("an option before any section", "a “config” line first");
                    // That the section is lost was said of the line that begins it.
                    return if self.lost { Ok(()) } else { Err(before) };
                };
                let list = verb.starts_with('l');
                if !list {
                    section.entries.retain(|entry| entry.key != key);
                }
                let value = second.unwrap_or_default();
                // A quote that was forgotten makes one value of all up to the next quote.
                let swallowed = value.contains('\n');
                section.damaged |= swallowed;
                section.entries.push(Entry { line, key, value, list });
                self.lost |= swallowed;
            }
            _ => return Err(("unknown statement", STATEMENTS)),
        }
        Ok(())
    }
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

impl Lexer<'_> {
    /// Next statement of a UCI file with at least one word; `None` at the end of the file. One with a quote that is
    /// never closed ends with its line.
    fn statement(&mut self) -> Option<Statement> {
        let mut statement = Statement { line: self.line, words: Vec::new(), fault: None };
        let mut start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => self.skip_line(),
                b'\n' | b';' => {
                    self.next();
                    if !statement.words.is_empty() {
                        break;
                    }
                }
                b'\\' if self.bytes.get(self.at + 1) == Some(&b'\n') => {
                    self.next();
                    self.next();
                }
                _ if byte.is_ascii_whitespace() => {
                    self.next();
                }
                _ => {
                    if statement.words.is_empty() {
                        (start, statement.line) = (self.at, self.line);
                    }
                    let mut word = Vec::new();
                    if let Err(fault) = self.word(&mut word) {
                        statement.fault = Some(fault);
                        (self.at, self.line) = (start, statement.line);
                        self.skip_line();
                    } else if word.contains(&0) {
                        statement.fault = Some(("a NUL byte", "text"));
                        word.clear();
                    }
                    statement.words.push(String::from_utf8(word).unwrap_or_else(|_| {
                        statement.fault = Some(("bytes that are no UTF-8 text", "UTF-8 text"));
                        String::new()
                    }));
                }
            }
        }
        (!statement.words.is_empty()).then_some(statement)
    }

    /// Reads one word of a UCI statement; quoted and bare parts that touch are one word.
    fn word(&mut self, word: &mut Vec<u8>) -> Result<(), Wrong> {
        while let Some(byte) = self.peek() {
            match byte {
                b'\'' | b'"' => self.quoted(byte, word)?,
                b'\\' => self.escaped(word),
                b'#' | b';' => break,
                _ if byte.is_ascii_whitespace() => break,
                _ => word.extend(self.next()),
            }
        }
        Ok(())
    }

    fn quoted(&mut self, quote: u8, word: &mut Vec<u8>) -> Result<(), Wrong> {
        self.next();
        loop {
            match self.peek() {
                None => return Err(("a quote that is never closed", "a second quote after the value")),
                Some(byte) if byte == quote => {
                    self.next();
                    return Ok(());
                }
                Some(b'\\') if quote == b'"' => self.escaped(word),
                Some(_) => word.extend(self.next()),
            }
        }
    }

    /// Reads `\` and a character as that character; `\` at the end of a line is nothing, the line goes on.
    fn escaped(&mut self, word: &mut Vec<u8>) {
        self.next();
        word.extend(self.next().filter(|&byte| byte != b'\n'));
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.next();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `kind/name: key=value, key+=item` a section: enough to compare whole files at a glance.
    fn read(text: &str) -> Vec<String> {
        let entry = |e: &Entry| format!(" {}{}{:?}", e.key, if e.list { "+=" } else { "=" }, e.value);
        let section = |s: &Section| {
            let entries: String = s.entries.iter().map(entry).collect();
            format!("{}/{}:{entries}", s.kind, s.name.as_deref().unwrap_or("-"))
        };
        let file = parse(text.as_bytes());
        assert_eq!(file.faults, []);
        file.sections.iter().map(section).collect()
    }

    #[test]
    fn file_of_openwrt_parses() {
        let text = "package gatewrt\n\nconfig gatewrt 'main'\n\toption enabled '1'\n\nconfig network 'home'\n\
                    \tlist endpoint '198.51.100.1:51820'\n\tlist endpoint '[2001:db8::1]:51820'\n\nconfig anon\n";
        let expected = [
            "gatewrt/main: enabled=\"1\"",
            "network/home: endpoint+=\"198.51.100.1:51820\" endpoint+=\"[2001:db8::1]:51820\"",
            "anon/-:",
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn quoted_bare_and_escaped_words_parse() {
        for (text, value) in [
            ("bare", "bare"),
            ("'single \"x\" \\n'", "single \"x\" \\n"),
            ("\"double \\\" 'x' \\\\\"", "double \" 'x' \\"),
            ("'it'\\''s'", "it's"),
            ("a\\ b", "a b"),
            ("a'b c'd", "ab cd"),
            ("'two\nlines'", "two\nlines"),
            ("\"joined \\\nlines\"", "joined lines"),
            ("joined\\\nword", "joinedword"),
            ("value# comment", "value"),
            ("'# no comment'", "# no comment"),
            ("''", ""),
            ("", ""),
            ("ä", "ä"),
        ] {
            assert_eq!(
                read(&format!("config a b\noption x {text}")),
                [format!("a/b: x={value:?}")],
                "{text}"
            );
        }
    }

    #[test]
    fn abbreviated_statements_on_one_line_parse() {
        assert_eq!(read("c t n; o a 1; l b 2 # rest ; o c 3\n\r\n;;\n\\\n# end"), ["t/n: a=\"1\" b+=\"2\""]);
    }

    #[test]
    fn error_names_the_line() {
        for (text, line, what) in [
            ("config a b\n\noption", 3, "an option's name is missing or unsound"),
            ("config a b\noption x-y 1", 2, "an option's name is missing or unsound"),
            ("\noption x 1", 2, "an option before any section"),
            ("config", 1, "“config” without a type"),
            ("config a b c", 1, "too many words in one statement"),
            ("config a b\noption x 1 2", 2, "too many words in one statement"),
            ("config a b\noption x 'open\n\n", 2, "a quote that is never closed"),
            ("config a b\n# x\nset y z", 3, "unknown statement"),
            ("config a\0", 1, "a NUL byte"),
            ("config a 'b\nconfig c d", 1, "a quote that is never closed"),
        ] {
            let faults = parse(text.as_bytes()).faults;
            assert_eq!(
                faults.iter().map(|it| (it.line, it.what)).collect::<Vec<_>>(),
                [(line, what)],
                "{text:?}"
            );
        }
        assert_eq!(parse(b"config a \xff").faults[0].what, "bytes that are no UTF-8 text");
    }

    #[test]
    fn fault_loses_its_line_alone() {
        let text = "config a b\n\toption one '1\n\toption two '2'\n\toptoin three 3\n\toption four 4\n";
        let file = parse(text.as_bytes());
        let lines: Vec<_> = file.faults.iter().map(|fault| fault.line).collect();
        let keys: Vec<_> = file.sections[0].entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!((lines, keys, file.sections[0].damaged), (vec![2, 4], vec!["two", "four"], true));
        let file = parse(b"config a b\n\toption one \xff\xfe\n\toption two 2\n");
        assert_eq!((file.faults.len(), file.sections[0].entries.len(), file.lost), (1, 1, false));
    }

    #[test]
    fn options_after_a_lost_header_are_not_those_of_the_section_before() {
        for header in
            ["confg exit x", "config exit x y", "config exit 'x\0'", "Config exit x", "\0\0config exit x"]
        {
            let file = parse(format!("config a b\n\toption one 1\n{header}\n\toption two 2\n").as_bytes());
            assert_eq!(
                (file.sections[0].entries.len(), file.faults.len(), file.lost),
                (1, 1, true),
                "{header}"
            );
        }
    }

    #[test]
    fn sections_of_one_name_merge_and_the_last_option_wins() {
        let text = "config a x\n\toption o 1\n\tlist l 1\nconfig a y\nconfig b x\nconfig a\nconfig a\n\
                    config a x\n\toption o 2\n\tlist l 2\n";
        let merged = "a/x: l+=\"1\" o=\"2\" l+=\"2\"";
        assert_eq!(read(text), [merged, "a/y:", "b/x:", "a/-:", "a/-:"]);
        assert_eq!(read("config a x\n\tlist l 1\n\toption l 2\n"), ["a/x: l=\"2\""]);
        assert_eq!(read("\u{feff}config a x\r\n\toption o 1\r\n"), ["a/x: o=\"1\""]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_text_of_uci_characters_parses_or_fails(text in "[col'\"\\\\\n;# \t]{0,80}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn output_of_uci_export_is_read_back(value in "[^\0']{0,40}", key in "[a-z0-9_]{1,8}") {
            let text = format!("config t 'n'\n\toption {key} '{value}'\n");
            let sections = parse(text.as_bytes()).sections;
            prop_assert_eq!(&sections[0].entries[0].value, &value);
            prop_assert_eq!(&sections[0].entries[0].key, &key);
            prop_assert_eq!(super::text(&sections), text);
        }
    }
}

//! UCI's text format, bytes to sections. It ends at text: what an option means is said in [`super`].
//!
//! Reads what libuci's `file.c` reads: `package`, `config`, `option` and `list` (or their first letters), words
//! bare, in `'…'` or in `"…"`, several lines within quotes, `\` before a character or the end of a line, `#`
//! up to the end of the line, `;` between statements.

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

/// Fault in a text that makes it no UCI file.
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

/// Parses the text of a UCI file into its sections, in the order of the file.
pub fn parse(bytes: &[u8]) -> Result<Vec<Section>, SyntaxError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lexer = Lexer { bytes, at: 0, line: 1 };
    while let Some(statement) = lexer.statement()? {
        let line = statement.line;
        let fail = |what, allowed| SyntaxError { line, what, allowed };
        let mut words = statement.words.into_iter();
        let (verb, first, second) = (words.next().unwrap_or_default(), words.next(), words.next());
        if words.next().is_some() {
            return Err(fail(
                "too many words in one statement",
                "a value with spaces stands in quotes: 'a b'",
            ));
        }
        match verb.as_str() {
            "package" | "p" => {}
            "config" | "c" => {
                let kind = first.ok_or(fail("“config” without a type", "config <type> '<name>'"))?;
                let name = second.filter(|name| !name.is_empty());
                sections.push(Section { line, kind, name, entries: Vec::new() });
            }
            "option" | "o" | "list" | "l" => {
                let key = first
                    .filter(|key| is_name(key))
                    .ok_or(fail("an option's name is missing or unsound", NAME))?;
                let section = sections
                    .last_mut()
                    .ok_or(fail("an option before any section", "a “config” line first"))?;
                let list = verb.starts_with('l');
                section.entries.push(Entry { line, key, value: second.unwrap_or_default(), list });
            }
            _ => return Err(fail("unknown statement", STATEMENTS)),
        }
    }
    Ok(sections)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Statement {
    line: u32,
    words: Vec<String>,
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

impl Lexer<'_> {
    /// Next statement of a UCI file with at least one word; `None` at the end of the file.
    fn statement(&mut self) -> Result<Option<Statement>, SyntaxError> {
        let mut words = Vec::new();
        let mut line = self.line;
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => self.skip_comment(),
                b'\n' | b';' => {
                    self.next();
                    if !words.is_empty() {
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
                    if words.is_empty() {
                        line = self.line;
                    }
                    words.push(self.word()?);
                }
            }
        }
        Ok((!words.is_empty()).then_some(Statement { line, words }))
    }

    /// Reads one word of a UCI statement; quoted and bare parts that touch are one word.
    fn word(&mut self) -> Result<String, SyntaxError> {
        let start = self.line;
        let mut word = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b'\'' | b'"' => self.quoted(byte, &mut word)?,
                b'\\' => self.escaped(&mut word),
                b'#' | b';' => break,
                _ if byte.is_ascii_whitespace() => break,
                _ => word.extend(self.next()),
            }
        }
        let fail = |what, allowed| SyntaxError { line: start, what, allowed };
        if word.contains(&0) {
            return Err(fail("a NUL byte", "text"));
        }
        String::from_utf8(word).map_err(|_| fail("bytes that are no UTF-8 text", "UTF-8 text"))
    }

    fn quoted(&mut self, quote: u8, word: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let start = self.line;
        self.next();
        loop {
            match self.peek() {
                None => {
                    let allowed = if quote == b'"' {
                        "a second \" after the value"
                    } else {
                        "a second ' after the value"
                    };
                    return Err(SyntaxError { line: start, what: "a quote that is never closed", allowed });
                }
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

    fn skip_comment(&mut self) {
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
        parse(text.as_bytes()).expect("sound").iter().map(section).collect()
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
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert_eq!((error.line, error.what), (line, what), "{text:?}");
        }
        assert_eq!(parse(b"config a \xff").expect_err("no UTF-8").what, "bytes that are no UTF-8 text");
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
            let sections = parse(text.as_bytes()).expect("sound");
            prop_assert_eq!(&sections[0].entries[0].value, &value);
            prop_assert_eq!(&sections[0].entries[0].key, &key);
        }
    }
}

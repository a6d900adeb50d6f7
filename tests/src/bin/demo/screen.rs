//! What the demo looks like: a width, a few colours on a terminal, and what is cut to fit. Nothing is decided here.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::story::Step;

/// No line is longer.
const WIDTH: usize = 98;
const TEXT: &str = "   ";
const OUTPUT: &str = "     ";
/// A join code is known by its first letters; all of it is the key to the network.
const CODE_SHOWN: usize = 16;

/// Where the demo writes.
pub struct Screen {
    colours: bool,
}

impl Screen {
    /// Standard output, with colours if that is a terminal which wants them.
    pub fn stdout() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !plain }
    }

    /// The name of the play.
    pub fn title(&self, text: &str) {
        self.say(&format!("\n{}\n", self.paint("1", text)));
    }

    /// Text as it is.
    #[expect(clippy::unused_self, reason = "the place to write to")]
    pub fn say(&self, text: &str) {
        // A terminal that is gone is no reason to fail: the signal that tells of it ends the program.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// The heading of a step, and why it is taken.
    pub fn step(&self, number: usize, of: usize, step: &Step) {
        self.say(&format!("\n{}", self.paint("1", &format!("{number:>2}/{of}  {}", step.title))));
        self.note(step.why);
    }

    /// A few words in between.
    pub fn note(&self, text: &str) {
        let width = WIDTH - TEXT.len();
        wrap(text, width).iter().for_each(|line| self.say(&format!("{TEXT}{line}")));
    }

    /// A command as a person would type it there.
    pub fn command(&self, host: &str, line: &str) {
        let prompt = format!("{host}# ");
        let line = cut(&shorten_codes(line), WIDTH - TEXT.len() - prompt.chars().count());
        self.say(&format!("{TEXT}{}{}", self.paint("36", &prompt), self.paint("36;1", &line)));
    }

    /// What a command said.
    pub fn output(&self, text: &str) {
        for line in text.lines() {
            let line = cut(&shorten_codes(&line.replace('\t', "    ")), WIDTH - OUTPUT.len());
            self.say(&if line.is_empty() { line } else { format!("{OUTPUT}{}", self.paint("2", &line)) });
        }
    }

    /// A picture made of letters, as it is: a camera has to read it.
    pub fn picture(&self, text: &str) {
        text.lines().for_each(|line| self.say(&format!("{OUTPUT}{line}")));
    }

    /// The good end of a step.
    pub fn passed(&self, time: Duration) {
        self.say(&format!("{TEXT}{} {:.2} s", self.paint("32;1", "✓"), time.as_secs_f64()));
    }

    /// The bad end of a step.
    pub fn failed(&self, time: Duration, why: &anyhow::Error) {
        let mark = self.paint("31;1", "✗");
        self.say(&format!("{TEXT}{mark} {:.2} s: {why:#}", time.as_secs_f64()));
    }

    /// How it went.
    pub fn summary(&self, done: usize, of: usize, time: Duration) {
        let text = format!("{done} of {of} steps, {:.1} s", time.as_secs_f64());
        let (text, colour) = match done == of {
            true => (format!("✓ {text}"), "32;1"),
            false => (format!("✗ {text}; step {} failed, see above", done + 1), "31;1"),
        };
        self.say(&format!("\n{}\n", self.paint(colour, &text)));
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows of cells, each column as wide as its widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("   ").trim_end());
        text
    })
}

/// Cells of one width with their text in the middle.
pub fn centred(cells: &[&str], width: usize) -> String {
    let row: String = cells.iter().map(|cell| format!("{cell:^width$}")).collect();
    row.trim_end().to_owned()
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a first line, and lines are only added");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width - 1).chain(['…']).collect()
}

fn shorten_codes(line: &str) -> String {
    let shorten = |word: &str| match word.char_indices().nth(CODE_SHOWN) {
        Some((at, _)) if word.starts_with("gw1.") => format!("{}…", &word[..at]),
        _ => word.to_owned(),
    };
    line.split(' ').map(shorten).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_code_is_never_shown_in_full() {
        let code = "gw1.tVuF3LsfZ4S5lRw7UU0bGRpWHZcwcfDlx7ewAVfD_0zmW_dIBxgEAhb7";
        assert_eq!(shorten_codes(code), "gw1.tVuF3LsfZ4S5…");
        assert_eq!(
            shorten_codes(&format!("gatewrt join {code} --name x")),
            "gatewrt join gw1.tVuF3LsfZ4S5… --name x"
        );
        assert_eq!(shorten_codes("no code  here: gw1.x"), "no code  here: gw1.x");
    }

    #[test]
    fn lines_fit() {
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("äöüßx", 4), "äöü…");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(centred(&["a", "bcd"], 5), "  a   bcd");
        assert_eq!(
            table(&[vec!["a".into(), "b".into()], vec!["ccc".into(), "-".into()]]),
            "a     b\nccc   -\n"
        );
    }
}

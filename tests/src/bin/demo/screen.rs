//! Layout of the demo's output: a width for prose, and a few colours on a terminal. Commands and what they print are shown
//! whole, however wide, since people copy them.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::story::Step;

/// Columns of prose.
const WIDTH: usize = 98;
const TEXT: &str = "   ";
const OUTPUT: &str = "     ";

/// Standard output of the demo.
pub struct Screen {
    is_terminal: bool,
    colours: bool,
}

impl Screen {
    /// Standard output, in colours if it is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_terminal = std::io::stdout().is_terminal();
        Self { is_terminal, colours: is_terminal && !plain }
    }

    /// True if standard output is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Prints the title of the demo.
    pub fn title(&self, text: &str) {
        self.say(&format!("\n{}\n", self.paint("1", text)));
    }

    /// Prints text unchanged.
    #[expect(clippy::unused_self, reason = "the place to write to")]
    pub fn say(&self, text: &str) {
        // A terminal that is gone is no reason to fail: the signal that tells of it ends the program.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Prints the heading of a step and its explanation.
    pub fn step(&self, number: usize, of: usize, step: &Step) {
        self.say(&format!("\n{}", self.paint("1", &format!("{number:>2}/{of}  {}", step.title))));
        self.note(step.why);
    }

    /// Prints a paragraph, wrapped.
    pub fn note(&self, text: &str) {
        let width = WIDTH - TEXT.len();
        wrap(text, width).iter().for_each(|line| self.say(&format!("{TEXT}{line}")));
    }

    /// Prints a command after the prompt of its host.
    pub fn command(&self, host: &str, line: &str) {
        let prompt = format!("{host}# ");
        self.say(&format!("{TEXT}{}{}", self.paint("36", &prompt), self.paint("36;1", line)));
    }

    /// Prints the output of a command, indented.
    pub fn output(&self, text: &str) {
        for line in text.lines() {
            let line = line.replace('\t', "    ");
            self.say(&if line.is_empty() { line } else { format!("{OUTPUT}{}", self.paint("2", &line)) });
        }
    }

    /// Prints that a step succeeded.
    pub fn passed(&self, time: Duration) {
        self.say(&format!("{TEXT}{} {:.2} s", self.paint("32;1", "✓"), time.as_secs_f64()));
    }

    /// Prints that a step failed, and why.
    pub fn failed(&self, time: Duration, why: &anyhow::Error) {
        let mark = self.paint("31;1", "✗");
        self.say(&format!("{TEXT}{mark} {:.2} s: {why:#}", time.as_secs_f64()));
    }

    /// Prints the result of the whole demo.
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

/// Formats rows of cells, each column as wide as its widest cell.
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

/// Formats cells of one width with their text in the middle.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_and_tables_fit_their_width() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(centred(&["a", "bcd"], 5), "  a   bcd");
        assert_eq!(
            table(&[vec!["a".into(), "b".into()], vec!["ccc".into(), "-".into()]]),
            "a     b\nccc   -\n"
        );
    }
}

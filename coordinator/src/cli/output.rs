//! Tables and texts. Text from a router is sanitized before it reaches a terminal.

use std::io::{self, Write};

/// Cell of a table, as its lines of text.
pub(super) type Cell = Vec<String>;

/// Prints a table: rows with aligned columns under a heading.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let one_line = |row: &Vec<String>| row.iter().map(|cell| vec![cell.clone()]).collect();
    stacked_table(heading, &rows.iter().map(one_line).collect::<Vec<_>>())
}

/// Prints a table as [`table`] does, with cells of several lines.
pub(super) fn stacked_table(heading: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    aligned(heading, rows).iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn aligned(heading: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let lines: Vec<Vec<String>> =
        [heading].into_iter().chain(rows.iter().flat_map(|row| lines_of(row))).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let join = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(join).collect()
}

/// Lines of text of a table's row: as many as its tallest cell has.
fn lines_of(row: &[Cell]) -> Vec<Vec<String>> {
    let height = row.iter().map(Vec::len).max().unwrap_or_default();
    let text = |cell: &Cell, at: usize| cell.get(at).map(|text| harmless(text)).unwrap_or_default();
    (0..height).map(|at| row.iter().map(|cell| text(cell, at)).collect()).collect()
}

/// Prints a value as JSON on several lines.
pub(super) fn json(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints one line of text to stdout.
pub(super) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", harmless(text))
}

/// Replaces control characters in a text, which could drive a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// Text of a table's cell with all items on one line; `-` for none.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

/// Cell of a table with each item on a line of its own; `-` for none.
pub(super) fn stack<T: ToString>(items: impl IntoIterator<Item = T>) -> Cell {
    let items: Cell = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { vec!["-".to_owned()] } else { items }
}

/// Text of a time span in seconds, in its two largest units, such as `3h 12m`.
pub(super) fn span(seconds: u64) -> String {
    let units =
        [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let from = units.iter().position(|(_, count)| *count != 0).unwrap_or(3);
    let parts = units[from..].iter().take(2).filter(|(_, count)| *count != 0);
    let text = parts.map(|(unit, count)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ");
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Text of a value whose JSON is a string, such as serde's name of an enum's variant.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_has_at_most_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_661, "1h 1m"),
            (86_400, "1d"),
            (90_061, "1d 1h"),
            (3_601, "1h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn cell_with_several_lines_stays_in_its_column() {
        let rows = [
            vec![stack(["a"]), stack(["10.0.0.0/8", "fd00::/8"]), stack([1])],
            vec![stack::<u8>([]), stack(["b\nc"])],
        ];
        assert_eq!(
            aligned(&["N", "SERVES", "X"], &rows),
            ["N  SERVES      X", "a  10.0.0.0/8  1", "   fd00::/8", "-  b·c"]
        );
    }

    #[test]
    fn control_characters_of_a_router_are_replaced() {
        assert_eq!(harmless("x\u{1b}[2Jy\n"), "x·[2Jy·");
    }
}

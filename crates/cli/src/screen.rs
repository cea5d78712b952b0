// SPDX-License-Identifier: Apache-2.0
//! Where output goes: colours only on a terminal, lines no wider than it, and a reader that goes
//! away (`ringfence check | head`) is not an error.

use std::io::{self, IsTerminal, Write};

/// Columns used where the output is no terminal that tells its width.
const DEFAULT_WIDTH: usize = 100;

/// What a piece of text is, from which its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Not as it must be.
    Bad,
    /// Could not be looked at.
    Unknown,
    /// A heading.
    Heading,
    /// Of less weight than what stands beside it.
    Faint,
}

impl Tone {
    fn sgr(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Unknown => "33",
            Self::Heading => "1",
            Self::Faint => "2",
        }
    }
}

/// How the output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    colours: bool,
    width: usize,
}

impl Style {
    /// For output that no person looks at directly.
    pub(crate) fn plain() -> Self {
        Self { colours: false, width: DEFAULT_WIDTH }
    }

    /// For the terminal on standard output, if there is one. `NO_COLOR` (no-color.org) and
    /// `TERM=dumb` switch colours off.
    pub(crate) fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self::plain();
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width =
            rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { DEFAULT_WIDTH } else { width.clamp(60, 140) };
        Self { colours: !no_color && !dumb, width }
    }

    /// Columns that a line may take.
    pub(crate) fn width(self) -> usize {
        self.width
    }

    /// `text` in the colour of `tone`.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", tone.sgr())
        } else {
            text.to_owned()
        }
    }
}

/// Standard output, remembering whether anybody still reads it.
pub(crate) struct Output<W: Write> {
    to: W,
    closed: bool,
}

impl Output<io::Stdout> {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::to(io::stdout())
    }
}

impl<W: Write> Output<W> {
    /// Output to anything.
    pub(crate) fn to(to: W) -> Self {
        Self { to, closed: false }
    }

    /// Writes all of `text` at once and flushes. When the reader has gone away it does nothing and
    /// [`Output::is_closed`] says so: what was found still decides the exit status.
    pub(crate) fn put(&mut self, text: &str) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        match self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the reader has gone away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Breaks `text` into lines of at most `width` characters at spaces; lines that `text` already has
/// are kept, and so is the indentation of each. A word longer than a line stays whole.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.chars().count() <= width {
            lines.push(line.trim_end().to_owned());
            continue;
        }
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let mut current = String::new();
        for word in line.split_whitespace() {
            let needed = current.chars().count() + 1 + word.chars().count();
            if !current.is_empty() && needed > width {
                lines.push(std::mem::take(&mut current));
            }
            if current.is_empty() {
                current.push_str(&indent);
            } else {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines
}

/// `number` with a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns aligned with two spaces between them. The first line is the heading.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; a heading that starts with `>` aligns its column to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let first = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![first], right }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text of the table, each line indented by `indent` spaces.
    pub(crate) fn render(&self, style: Style, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths.get(column).copied().unwrap_or(0);
                if column > 0 {
                    line.push_str("  ");
                }
                if self.right.get(column).copied().unwrap_or(false) {
                    line.push_str(&format!("{cell:>width$}"));
                } else {
                    line.push_str(&format!("{cell:<width$}"));
                }
            }
            let line = line.trim_end();
            text.push_str(&" ".repeat(indent));
            text.push_str(&if index == 0 { style.paint(Tone::Faint, line) } else { line.into() });
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_noticed_and_is_no_error() {
        let mut output = Output::to(Gone);
        output.put("line\n").unwrap();
        assert!(output.is_closed());
        output.put("line\n").unwrap();
    }

    #[test]
    fn long_lines_break_at_spaces_and_keep_their_indentation() {
        assert_eq!(wrap("  one two three", 9), ["  one two", "  three"]);
        assert_eq!(wrap("short\nlines", 9), ["short", "lines"]);
        assert_eq!(wrap("unbreakablyLong x", 5), ["unbreakablyLong", "x"]);
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(
            [0, 999, 1000, 18_911_432].map(grouped),
            ["0", "999", "1,000", "18,911,432"].map(String::from)
        );
    }

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["name", ">count"]);
        table.row(vec!["a".into(), "10".into()]);
        table.row(vec!["long name".into(), "7".into()]);
        let text = table.render(Style::plain(), 1);
        assert_eq!(text, " name       count\n a             10\n long name      7\n");
    }

    #[test]
    fn plain_output_holds_no_escape_sequences() {
        assert_eq!(Style::plain().paint(Tone::Bad, "x"), "x");
        let coloured = Style { colours: true, width: 80 };
        assert_eq!(coloured.paint(Tone::Bad, "x"), "\x1b[1;31mx\x1b[0m");
    }
}

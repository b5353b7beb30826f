//! A plain table: columns under headings, as many of them as fit.

use anstyle::Style;
use unicode_width::UnicodeWidthStr as _;

use super::Printer;
use super::text::visible;

/// Columns between two columns.
const GAP: usize = 2;
/// Where a table is too wide for its terminal, no cell but the last of a line is wider than this: room for an id.
const CELL_MAX: usize = 40;
/// A cell that must be shortened keeps at least this many columns.
const CELL_MIN: usize = 8;
/// A last column that is wrapped is given at least this many columns before others are left out for it.
const WRAPPED_MIN: usize = 24;
/// A last column that is shortened keeps at least so much, in columns of the terminal.
const SHORTENED_MIN: usize = 16;

/// One cell: text that is safe to print, and how it looks.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: visible(text.as_ref()).into_owned(), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// One column: its heading, and how soon it is left out.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// In capitals.
    pub heading: &'static str,
    /// 0 stays always; the column with the highest rank is left out first when the terminal is narrow.
    pub rank: u8,
}

/// A column that stays.
pub const fn column(heading: &'static str) -> Column {
    Column { heading, rank: 0 }
}

/// A column that is left out when the terminal is narrow, the highest rank first.
pub const fn optional(heading: &'static str, rank: u8) -> Column {
    Column { heading, rank }
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    wraps: bool,
    /// How narrow the last column may get before others are left out for it.
    last_min: Option<usize>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), wraps: false, last_min: None }
    }

    /// Lets a last column that is too wide go on in the lines below, instead of shortening it.
    #[must_use]
    pub fn wrapping(mut self) -> Self {
        self.wraps = true;
        self.last_min = Some(WRAPPED_MIN);
        self
    }

    /// Shortens a last column that is too wide before other columns are left out.
    #[must_use]
    pub fn shortening(mut self) -> Self {
        self.last_min = Some(SHORTENED_MIN);
        self
    }

    /// Adds a row, one cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text that ends with a line break. Columns without any text are left out, then as many as it takes
    /// for the rest to fit; a last column that is still too wide is shortened, or wrapped.
    pub fn render(&self, printer: &Printer) -> String {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|index| self.width(index)).collect();
        let mut kept: Vec<usize> = (0..widths.len()).filter(|&index| self.has_text(index)).collect();
        if let Some(limit) = printer.width() {
            if total(&kept, &widths) > limit
                && let Some((_, before)) = widths.split_last_mut()
            {
                // One long name must not push everything else out.
                for width in before {
                    *width = (*width).min(CELL_MAX);
                }
            }
            let mut least = widths.clone();
            if let (Some(min), Some(last)) = (self.last_min, least.last_mut()) {
                *last = (*last).min(min);
            }
            while total(&kept, &least) > limit {
                let victim = kept.iter().copied().filter(|&index| self.columns[index].rank > 0);
                let Some(victim) = victim.max_by_key(|&index| self.columns[index].rank) else { break };
                kept.retain(|&index| index != victim);
            }
            if let Some(&last) = kept.last() {
                let excess = total(&kept, &widths).saturating_sub(limit);
                widths[last] = widths[last].saturating_sub(excess).max(CELL_MIN.min(widths[last]));
            }
        }
        let mut text = String::new();
        let headings: Vec<Cell> =
            self.columns.iter().map(|column| Cell::styled(column.heading, super::style::FAINT)).collect();
        for row in core::iter::once(&headings).chain(&self.rows) {
            if self.wraps {
                text.push_str(&lines(row, &kept, &widths, printer));
            } else {
                text.push_str(&line(row, &kept, &widths, printer));
                text.push('\n');
            }
        }
        text
    }

    fn width(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[index].text.width());
        cells.chain([self.columns[index].heading.width()]).max().unwrap_or(0)
    }

    fn has_text(&self, index: usize) -> bool {
        self.columns[index].rank == 0 || self.rows.iter().any(|row| !row[index].text.is_empty())
    }
}

fn total(kept: &[usize], widths: &[usize]) -> usize {
    kept.iter().map(|&index| widths[index] + GAP).sum::<usize>().saturating_sub(GAP)
}

fn line(row: &[Cell], kept: &[usize], widths: &[usize], printer: &Printer) -> String {
    let mut line = String::new();
    let mut owed = 0;
    for &index in kept {
        let text = shortened(&row[index].text, widths[index]);
        if !text.is_empty() {
            line.extend(core::iter::repeat_n(' ', owed));
            owed = 0;
            line.push_str(&printer.paint(row[index].style, &text));
        }
        owed += widths[index].saturating_sub(text.width()) + GAP;
    }
    line
}

/// A row whose last cell goes on in the lines below.
fn lines(row: &[Cell], kept: &[usize], widths: &[usize], printer: &Printer) -> String {
    let Some((&last, before)) = kept.split_last() else { return "\n".to_owned() };
    let indent = " ".repeat(before.iter().map(|&index| widths[index] + GAP).sum());
    let mut pieces = wrapped(&row[last].text, widths[last]).into_iter();
    let mut first = row.to_vec();
    first[last].text = pieces.next().unwrap_or_default();
    let mut text = line(&first, kept, widths, printer);
    for piece in pieces {
        text.push('\n');
        text.push_str(&indent);
        text.push_str(&printer.paint(row[last].style, &piece));
    }
    text.push('\n');
    text
}

/// `text` in pieces of at most `width` columns, broken at blanks; a word that is longer is shortened.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.to_owned()];
    }
    let mut pieces: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match pieces.last_mut() {
            Some(piece) if piece.width() + 1 + word.width() <= width => {
                piece.push(' ');
                piece.push_str(word);
            }
            _ => pieces.push(shortened(word, width)),
        }
    }
    pieces
}

/// `text`, or as much of it as fits into `width` columns with an ellipsis.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        let mut longer = short.clone();
        longer.push(char);
        if longer.width() + 1 > width {
            break;
        }
        short = longer;
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::output::{Color, Volume};

    fn table() -> Table {
        let mut table = Table::new(&[column("HOST"), column("STATE"), optional("LOAD", 2), optional("TAGS", 1)]);
        table.row(vec!["東京1".into(), "up".into(), "0.10".into(), "role=web".into()]);
        table.row(vec!["db".into(), "down".into(), "".into(), "".into()]);
        table
    }

    fn printer(width: Option<usize>) -> Printer {
        Printer { width, ..Printer::new(Color::Never, Volume::Normal, &Env::default()) }
    }

    #[test]
    fn columns_line_up_by_the_width_that_is_seen_and_no_line_ends_in_blanks() {
        assert_eq!(
            table().render(&printer(None)),
            "HOST   STATE  LOAD  TAGS\n東京1  up     0.10  role=web\ndb     down\n"
        );
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_columns_first() {
        assert_eq!(table().render(&printer(Some(23))), "HOST   STATE  TAGS\n東京1  up     role=web\ndb     down\n");
        assert_eq!(table().render(&printer(Some(12))), "HOST   STATE\n東京1  up\ndb     down\n");
    }

    #[test]
    fn a_last_column_that_is_too_wide_is_shortened() {
        let mut table = Table::new(&[column("HOST"), column("MESSAGE")]);
        table.row(vec!["web1".into(), "silent since three in the morning".into()]);
        assert_eq!(table.render(&printer(Some(20))), "HOST  MESSAGE\nweb1  silent since …\n");
    }

    #[test]
    fn a_last_column_may_be_shortened_before_others_are_lost() {
        let columns = [optional("CREATED", 2), column("ID"), optional("ERROR", 1)];
        let mut table = Table::new(&columns).shortening();
        table.row(vec!["yesterday".into(), "0199".into(), "no connection to the mail server".into()]);
        assert_eq!(table.render(&printer(Some(34))), "CREATED    ID    ERROR\nyesterday  0199  no connection to…\n");
        assert_eq!(table.render(&printer(Some(24))), "ID    ERROR\n0199  no connection to …\n");
    }

    #[test]
    fn a_last_column_that_wraps_is_told_whole_and_leaves_room_for_the_others() {
        let mut table = Table::new(&[column("HOST"), optional("CAUSE", 1), column("MESSAGE")]).wrapping();
        table.row(vec!["web1".into(), "killed".into(), "web1 is back after five minutes of silence".into()]);
        table.row(vec!["db".into(), "".into(), "short".into()]);
        assert_eq!(
            table.render(&printer(Some(40))),
            "HOST  CAUSE   MESSAGE\n\
             web1  killed  web1 is back after five\n              minutes of silence\n\
             db            short\n"
        );
        assert!(table.render(&printer(None)).contains("killed  web1 is back after five minutes of silence\n"));
    }

    #[test]
    fn one_long_name_does_not_push_the_others_out_of_a_terminal() {
        let mut table = Table::new(&[column("HOST"), optional("TAGS", 1), column("STATE")]);
        let (long, id) = ("x".repeat(200), "019ab000-0000-7000-8000-00000000000d");
        table.row(vec![long.as_str().into(), "site=eu".into(), "up".into()]);
        table.row(vec![id.into(), "".into(), "down".into()]);
        let text = table.render(&printer(Some(60)));
        assert_eq!(
            text,
            format!("HOST{:36}  TAGS     STATE\n{}…  site=eu  up\n{id}{:4}           down\n", "", "x".repeat(39), "")
        );
        assert!(table.render(&printer(None)).contains(&long), "a program gets all of it");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let mut table = Table::new(&[column("HOST")]);
        table.row(vec!["\x1b]0;x\x07\r".into()]);
        assert_eq!(table.render(&printer(None)), "HOST\n\\u{1b}]0;x\\u{7}\\r\n");
    }
}

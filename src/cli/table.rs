//! Aligned columns of text.
//!
//! Invariant: no line ends in a space; every line ends in a line break.

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Rows of cells, the heading first, as lines with `indent` spaces before and two between the columns.
///
/// A cell beyond `columns` is left out; a missing one is empty.
pub(super) fn table(indent: usize, columns: &[Side], rows: &[Vec<String>]) -> String {
    let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let padded = columns.iter().zip(&widths).enumerate().map(|(index, (side, &width))| match side {
            Side::Left => format!("{:<width$}", cell(row, index)),
            Side::Right => format!("{:>width$}", cell(row, index)),
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        text.push_str(format!("{:indent$}{line}", "").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let rows = [row(&["POOL", "SHARE", "NOTE"]), row(&["grün", "100%"]), row(&["b", "5%", "active", "beyond"])];
        let expected = "  POOL  SHARE  NOTE\n  grün   100%\n  b        5%  active\n";
        assert_eq!(table(2, &[Side::Left, Side::Right, Side::Left], &rows), expected);
        assert_eq!(table(0, &[], &[]), "");
    }
}

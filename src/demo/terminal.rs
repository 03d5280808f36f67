//! The terminal: a block of lines drawn over itself.
//!
//! Invariant: whatever ends the demo, the cursor is visible again below the block.

use std::io::{IsTerminal, Write};

/// Narrower blocks are unreadable, wider ones are hard to follow.
const WIDTHS: std::ops::RangeInclusive<usize> = 70..=120;
const WIDTH: usize = 80;

/// A block on standard output.
pub struct Screen {
    lines: usize,
    /// Columns.
    pub width: usize,
}

impl Screen {
    /// A block of the width that `COLUMNS` says, if it does; `None` where standard output is no terminal.
    pub fn open() -> Option<Screen> {
        let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = asked.unwrap_or(WIDTH).clamp(*WIDTHS.start(), *WIDTHS.end());
        std::io::stdout().is_terminal().then_some(Screen { lines: 0, width })
    }

    /// Draws the block over the last one.
    pub fn draw(&mut self, block: &str) {
        // A terminal that went away is noticed by its signal, not here.
        let _ = std::io::stdout().write_all(over(self.lines, block).as_bytes());
        let _ = std::io::stdout().flush();
        self.lines = block.lines().count();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = std::io::stdout().write_all(b"\x1b[?25h");
        let _ = std::io::stdout().flush();
    }
}

/// The bytes that replace `lines` lines by a block: cursor hidden and up, each line cleared and written.
fn over(lines: usize, block: &str) -> String {
    let up = if lines > 0 { format!("\r\x1b[{lines}A") } else { String::new() };
    let body: String = block.lines().map(|line| format!("\x1b[2K{line}\n")).collect();
    format!("\x1b[?25l{up}{body}\x1b[J")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_replaces_the_one_before_it() {
        assert_eq!(over(0, "a\nb\n"), "\x1b[?25l\x1b[2Ka\n\x1b[2Kb\n\x1b[J");
        assert_eq!(over(2, "c\n"), "\x1b[?25l\r\x1b[2A\x1b[2Kc\n\x1b[J");
    }
}

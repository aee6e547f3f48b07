//! What people read of texts that others chose: labels, commands, names, and times.
//!
//! A label may hold anything. Shown as it is, it could move a terminal's cursor, set its title,
//! break a line in two, or turn the direction of the text around it. So every text of another
//! process is escaped where people read it, and only there: JSON and the API carry it unchanged.

use std::{
    fmt::{self, Write},
    time::Duration,
};

/// A text in which every character is escaped that a terminal or a reader could be misled by.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaping(f).write_str(self.0)
    }
}

/// Escapes what is written through it.
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, found)) = rest.char_indices().find(|&(_, c)| is_misleading(c)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", found.escape_default())?;
            rest = &rest[at + found.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Controls (Cc), formats (Cf), separators of lines and paragraphs (Zl, Zp), and the plane of
/// invisible tags.
fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A time as people say it, rounded down to what matters.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_formats_and_directions_are_escaped_and_nothing_else() {
        for (text, shown) in [
            ("nightly.sh", "nightly.sh"),
            ("Zoë's \"job\" \\ 夜间 🦀 e\u{301}", "Zoë's \"job\" \\ 夜间 🦀 e\u{301}"),
            ("x\u{1b}[2J\u{1b}]0;owned\u{7}\nFAKE", r"x\u{1b}[2J\u{1b}]0;owned\u{7}\nFAKE"),
            ("a\tb\rc\0", r"a\tb\rc\u{0}"),
            ("\u{9b}31m\u{7f}", r"\u{9b}31m\u{7f}"),
            ("gpj\u{202e}exe.\u{2066}\u{200b}\u{feff}", r"gpj\u{202e}exe.\u{2066}\u{200b}\u{feff}"),
            ("\u{2028}\u{ad}\u{e0041}", r"\u{2028}\u{ad}\u{e0041}"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }

    /// What `{:?}` of the standard library escapes as not printable, this escapes too, but for
    /// blanks, private and unassigned characters, which only look odd.
    #[test]
    fn every_format_character_that_std_knows_is_escaped() {
        for c in (0..0xe1000).filter_map(char::from_u32).filter(|&c| is_misleading(c)) {
            assert_ne!(c.escape_debug().to_string(), c.to_string(), "{:x}", c as u32);
        }
    }

    #[test]
    fn times_in_words() {
        for (ms, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_050, "1.0 s"),
            (59_999, "59.9 s"),
            (61_000, "1 min 1 s"),
            (3_660_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(in_words(Duration::from_millis(ms)), words);
        }
    }
}

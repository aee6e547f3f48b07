//! What people read of texts that others chose: labels, commands, names, and times.
//!
//! A label may hold anything. Shown as it is, it could move a terminal's cursor, set its title,
//! break a line in two, or turn the direction of the text around it. So every text of another
//! process is escaped where people read it, and only there: JSON and the API carry it unchanged.

use std::{
    borrow::Cow,
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

/// How many of so many things are named: all of a few, of more the first ones.
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
pub(crate) fn named_of(count: usize) -> usize {
    const ALL_OF: usize = 5;
    const FIRST_OF_MORE: usize = 3;
    if count > ALL_OF { FIRST_OF_MORE } else { count }
}

/// Things in a row, `between` them a text; of many the first few, and how many there are more.
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
pub(crate) fn few<T: fmt::Display>(
    things: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    between: &str,
) -> String {
    let things = things.into_iter();
    let (count, named) = (things.len(), named_of(things.len()));
    let mut text = String::new();
    for (at, thing) in things.take(named).enumerate() {
        let before = if at == 0 { "" } else { between };
        let _ = write!(text, "{before}{thing}");
    }
    if count > named {
        let _ = write!(text, " and {} more", grouped(count - named));
    }
    text
}

/// `19,997`
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The longest message, in bytes, and how much of a longer one is its end.
const MESSAGE_BYTES_MAX: usize = 1_500;
const MESSAGE_END_BYTES: usize = 500;

/// A message without the middle, if it is long. It may quote what a caller gave, which has no limit, or is a list;
/// what is wrong stands at its beginning, and what to do at its end.
pub(crate) fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.into();
    }
    let begins = message.floor_char_boundary(MESSAGE_BYTES_MAX - MESSAGE_END_BYTES);
    let ends = message.ceil_char_boundary(message.len() - MESSAGE_END_BYTES);
    let left_out = grouped(ends - begins);
    format!("{} … ({left_out} bytes) … {}", &message[..begins], &message[ends..]).into()
}

/// A JSON document that is read as lines, and on terminals, too: the same data, with the same characters spelled
/// out in its strings.
#[cfg(feature = "cli")]
pub(crate) fn spelled_out(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match is_misleading(c) {
            false => text.push(c),
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
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
mod tests;

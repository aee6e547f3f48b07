//! The names of locks.

use std::{fmt, ops::Deref, str::FromStr, sync::Arc};

/// The name of a lock: 1 to 255 bytes of UTF-8 without control characters.
///
/// `/` separates parts by custom (`orders/42`); nothing gives it a meaning. A `Name` that exists
/// is valid, so nothing below the place where it was parsed checks it again.
///
/// ```
/// use tierlock::Name;
/// assert_eq!(Name::new("orders/42").unwrap().as_str(), "orders/42");
/// assert!(Name::new("").is_err());
/// assert!(Name::new("a\nb").is_err());
/// assert!(Name::new(&"x".repeat(256)).is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `text` and makes a name of it.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidName::TooLong { bytes: text.len() });
        }
        if let Some((at, found)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidName::Control { at, found });
        }
        Ok(Name(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Name::new(s)
    }
}

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// It has no bytes.
    #[error("a lock's name is empty; it needs 1 to 255 bytes")]
    Empty,
    /// It has more than [`Name::MAX_BYTES`].
    #[error("a lock's name has {bytes} bytes; at most 255 are allowed")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It holds a control character.
    #[error("a lock's name has the control character {found:?} at byte {at}")]
    Control {
        /// The byte where it stands.
        at: usize,
        /// The character.
        found: char,
    },
}

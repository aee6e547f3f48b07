//! Fencing tokens.

use std::{fmt, num::ParseIntError, str::FromStr};

/// A fencing token (Chubby's *sequencer*): a number below 2^63 that grows with every grant of a
/// name.
///
/// Give it to the resource that the lock protects; the resource keeps the highest token it has
/// seen and refuses a smaller one, so that a holder which lost its lock without noticing can do
/// no harm. It fits a signed 64-bit SQL column ([`as_i64`](Token::as_i64)).
///
/// Below host scope a token is a plain count. At host scope its upper 23 bits are the leader's
/// epoch and its lower 40 a count.
///
/// # Example
/// ```
/// use tierlock::Token;
///
/// let token: Token = "1099511627781".parse()?; // as `TIERLOCK_TOKEN` has it
/// assert_eq!((token.epoch(), token.as_i64()), (1, 1099511627781));
/// assert!(token > Token::ZERO);
/// # Ok::<(), tierlock::ParseTokenError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// Below every token that is ever granted.
    pub const ZERO: Token = Token(0);
    /// The largest token.
    pub const MAX: Token = Token((1 << 63) - 1);
    /// How many low bits count within an epoch.
    pub const COUNT_BITS: u32 = 40;
    /// The largest epoch of a leader.
    pub const MAX_EPOCH: u32 = (1 << 23) - 1;

    /// The token with this number, if it is below 2^63.
    pub const fn new(number: u64) -> Option<Token> {
        if number <= Self::MAX.0 { Some(Token(number)) } else { None }
    }

    /// The token with this number, of a reserve that has only tokens.
    #[cfg(feature = "process")]
    #[cfg_attr(
        any(not(target_os = "linux"), tierlock_no_table),
        allow(dead_code, reason = "the table engine's")
    )]
    #[inline]
    pub(crate) const fn of_reserve(number: u64) -> Token {
        debug_assert!(number <= Self::MAX.0, "no reserve lies beyond the largest token");
        Token(number)
    }

    /// The first token of a leader's epoch; its count is zero.
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) const fn first_of(epoch: u32) -> Token {
        assert!(epoch <= Self::MAX_EPOCH);
        Token((epoch as u64) << Self::COUNT_BITS)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as SQL's signed 64-bit integer; never negative.
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }

    /// The leader's epoch in this token; 0 below host scope, unless a count passed 2^40.
    ///
    /// # Example
    /// ```
    /// use tierlock::Token;
    ///
    /// let token = Token::new(3 << Token::COUNT_BITS | 7).unwrap();
    /// assert_eq!(token.epoch(), 3); // granted by the leader's third reign
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub const fn epoch(self) -> u32 {
        (self.0 >> Self::COUNT_BITS) as u32
    }

    /// The token after this one; `None` when tokens are exhausted. They never wrap.
    pub const fn next(self) -> Option<Token> {
        Token::new(self.0 + 1)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// As the number.
#[cfg(feature = "serde")]
impl serde::Serialize for Token {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// From a number below 2^63.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
        let number = u64::deserialize(deserializer)?;
        Token::new(number)
            .ok_or_else(|| serde::de::Error::custom(ParseTokenError::TooLarge(number)))
    }
}

/// What [`Token::from_str`] answers to a text that is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTokenError {
    /// It is no unsigned decimal number.
    #[error("a token is a whole number: {0}")]
    Number(#[from] ParseIntError),
    /// It is 2^63 or more.
    #[error("{0} is no token: tokens are below 2^63")]
    TooLarge(u64),
}

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let number = s.parse()?;
        Token::new(number).ok_or(ParseTokenError::TooLarge(number))
    }
}

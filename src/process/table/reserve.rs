//! `DIR/tokens`: the number that no token of the directory has passed yet.
//!
//! The table is not synced, so after a loss of power its tokens may be old ones. This number is
//! durable before the first token near it is granted; a table that starts anew starts above it.
//! It is raised in steps of 2^32, which costs one fsync in so many locks.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{error::LockError, token::Token};

use super::super::dir::{
    files::cannot_open,
    home::{Home, Replace, SAFELY, damaged, failed},
};

const TOKENS: &str = "tokens";
/// How far ahead tokens are reserved.
pub(super) const STEP: u64 = 1 << 32;

/// The reserve of this directory; zero if none was ever made.
pub(super) fn read(home: &Home) -> Result<Token, LockError> {
    const LONGEST: u64 = 32;
    let flags = OFlags::RDONLY | SAFELY;
    let file = match rustix::fs::openat(&home.fd, TOKENS, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Token::ZERO),
        Err(e) => return Err(home.about_file(TOKENS, cannot_open(e))),
    };
    let mut text = String::new();
    match file.take(LONGEST).read_to_string(&mut text) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
        Err(e) => return Err(home.about_file(TOKENS, failed("cannot read it", e))),
    }
    let number = text.strip_suffix('\n').and_then(|line| line.parse().ok());
    number.ok_or_else(|| {
        home.about_file(
            TOKENS,
            damaged(
                "it does not say a token, so it is unknown which tokens were granted; write one \
                 into it that is larger than every token that was ever seen",
            ),
        )
    })
}

/// Makes the reserve durable at a step above `token`, and answers it. For one process at a time.
pub(super) fn raise(home: &Home, token: Token) -> Result<Token, LockError> {
    let reserve = Token::new(token.get().saturating_add(STEP)).unwrap_or(Token::MAX);
    let line = format!("{reserve}\n");
    let aside = |mut file: &File| file.write_all(line.as_bytes());
    match home.write_aside(&home.fd, TOKENS, Replace::Yes, aside) {
        // In a sticky directory no user may replace another user's file.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => write_over(home, &line),
        written => written,
    }
    .map_err(|e| home.about_file(TOKENS, failed("cannot reserve tokens", e)))?;
    Ok(reserve)
}

/// Writes over the old line, which is no longer than the new one: numbers only grow. So few bytes
/// are on the disk all or none.
fn write_over(home: &Home, line: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | SAFELY;
    let file = File::from(rustix::fs::openat(&home.fd, TOKENS, flags, Mode::empty())?);
    file.write_all_at(line.as_bytes(), 0)?;
    file.sync_all()
}

/// From which token on this reserve is to be raised: when half of the step is used up. What is
/// below is a token.
pub(super) fn due(reserve: Token) -> u64 {
    match reserve {
        Token::MAX => Token::MAX.get() + 1,
        reserve => reserve.get().saturating_sub(STEP / 2),
    }
}

//! `DIR/tokens`: the number that no token of the directory has passed yet.
//!
//! The table is not synced, so after a loss of power its tokens may be old ones. This number is
//! durable before the first token near it is granted; a table that starts anew starts above it.
//! It is raised in steps of 2^32, which costs one fsync in so many locks.

use std::{
    fs::File,
    io::{Read, Write},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{error::LockError, token::Token};

use super::super::{
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
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {}
        Err(e) => return Err(home.about_file(TOKENS, failed("cannot read it", e))),
    }
    let number = text.strip_suffix('\n').and_then(|line| line.parse().ok());
    number.ok_or_else(|| {
        home.about_file(
            TOKENS,
            damaged(
                "it does not say a token, so it is unknown which tokens were granted; write one \
                 into it that is larger than all that anybody has seen",
            ),
        )
    })
}

/// Makes the reserve durable at a step above `token`, and answers it. For one process at a time.
pub(super) fn raise(home: &Home, token: Token) -> Result<Token, LockError> {
    let reserve = Token::new(token.get().saturating_add(STEP)).unwrap_or(Token::MAX);
    let line = format!("{reserve}\n");
    home.write_aside(&home.fd, TOKENS, Replace::Yes, |mut file| file.write_all(line.as_bytes()))
        .map_err(|e| home.about_file(TOKENS, failed("cannot reserve tokens", e)))?;
    Ok(reserve)
}

/// From which token on this reserve is to be raised: when half of the step is used up.
pub(super) fn due(reserve: Token) -> u64 {
    if reserve == Token::MAX { u64::MAX } else { reserve.get().saturating_sub(STEP / 2) }
}

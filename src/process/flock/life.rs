//! Lock files: whether their holder lives, and what is set aside for them.

use std::{fs::File, os::fd::AsFd};

use super::{FIRST_LIFE, NO_LIFE};
use crate::{
    error::LockError,
    filesystem::Trust,
    process::{
        dir::{
            files,
            home::{self, damaged, failed},
        },
        sys::{BYTES, byte_lock},
    },
};

/// Locks a byte that no other description has.
pub(super) fn begin_life(file: &File, trust: Trust) -> u64 {
    if trust != Trust::Known {
        return NO_LIFE;
    }
    loop {
        let life = FIRST_LIFE | (home::random() >> 3);
        match byte_lock::hold(file, life as i64) {
            Ok(true) => return life,
            Ok(false) => {}
            // It is for people only; the lock itself does without.
            Err(_) => return NO_LIFE,
        }
    }
}

/// Whether the description that locked this byte is still open somewhere. Not for one's own.
pub(super) fn is_alive(file: &File, life: u64) -> bool {
    if life < FIRST_LIFE {
        return true;
    }
    i64::try_from(life).is_ok_and(|at| byte_lock::is_held(file.as_fd(), at).unwrap_or(true))
}

/// Gives the file its size and its space on the disk.
pub(in crate::process) fn allocate(file: &File) -> Result<(), LockError> {
    regular_length(file)?;
    files::reserve(file, 0, BYTES as u64)
        .map_err(|e| failed("cannot allocate its 4096 bytes", e))?;
    match regular_length(file)? {
        0 => Err(damaged("it stays empty although space was allocated")),
        _ => Ok(()),
    }
}

/// The length of a lock file that may be one: 0 when blank, else [`BYTES`].
pub(super) fn regular_length(file: &File) -> Result<u64, LockError> {
    let found = file.metadata().map_err(|e| failed("cannot look at it", e))?;
    if !found.is_file() {
        return Err(damaged("it is not a regular file"));
    }
    match found.len() {
        length if length == 0 || length == BYTES as u64 => Ok(length),
        length => Err(damaged(format!("it has {length} bytes and not {BYTES}"))),
    }
}

pub(super) fn no_token() -> LockError {
    damaged("its token is none: 2^63 or more; stop every process that uses it and remove the file")
}

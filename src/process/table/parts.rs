//! The parts of this engine by themselves, for `benches/word.rs`; outside semver.

use std::{path::Path, sync::Arc};

use crate::{error::LockError, fork, name::Name, time::Time, token::Token};

use super::super::{Options, SlotWish, dir::home::Home};
use super::{TableDirectory, TableSlot, index::Found, member::Member};

/// A directory of locks, as this process has it open.
pub struct TableParts {
    directory: Arc<TableDirectory>,
    member: Arc<Member>,
}

impl TableParts {
    /// Opens the directory, making it if it is missing.
    pub fn open(path: &Path) -> Result<TableParts, LockError> {
        let directory = TableDirectory::open(Home::open(path, &[])?, &Options::default())?;
        let member = directory.member()?;
        Ok(TableParts { directory: Arc::new(directory), member })
    }

    /// The number of the name's slot, made if it has none.
    pub fn find(&self, name: &Name) -> Result<u32, LockError> {
        let Found { number, .. } = self.member.find(name)?;
        Ok(number)
    }

    /// Does `work` while no other can change what the table is made of.
    #[cfg(test)]
    pub(crate) fn while_changing(&self, work: impl FnOnce()) {
        let worked = self.member.change(|_| {
            work();
            Ok(())
        });
        worked.unwrap();
    }

    /// The word of the name's slot.
    pub fn word(&self, name: &Name) -> Result<WordParts, LockError> {
        self.directory.slot(name).map(WordParts)
    }
}

/// The word of a name's slot, with the token that it guards.
pub struct WordParts(TableSlot);

impl WordParts {
    /// Takes it, as a quiet lock does: its token. `None`, if anything stands in the way: once in
    /// 65,536 tokens the taker has to look at the directory first.
    #[inline]
    pub fn take(&self) -> Option<Token> {
        self.0.found(fork::generation())?.take()
    }

    /// Takes it, whatever stands in the way.
    pub fn take_in_earnest(&self) -> Result<Token, LockError> {
        Ok(self.0.take_unless(Token::ZERO, Time::NEVER, &|| false, SlotWish::default())?.token)
    }

    /// Releases it, as a quiet unlock of the holder of this token does.
    #[inline]
    pub fn release(&self, token: Token) {
        if let Some(found) = self.0.found(fork::generation()) {
            found.release(token);
        }
    }
}

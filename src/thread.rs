//! Thread tier.
use crate::{
    error::{LockError, Predecessor},
    time::Time,
    token::Token,
};

/// The thread tier's lock: a word, a queue, a token. The caller pairs every taking with one `release`.
pub(crate) struct ThreadLock {}

/// What the winner is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
}

impl ThreadLock {
    pub(crate) const fn new() -> ThreadLock {
        ThreadLock {}
    }
    pub(crate) fn try_take(&self) -> Option<Taken> {
        todo!()
    }
    /// Blocks until taken.
    pub(crate) fn take(&self) -> Taken {
        todo!()
    }
    /// Blocks until taken or until the time has come; then `None`.
    pub(crate) fn take_until(&self, until: Time) -> Option<Taken> {
        let _ = until;
        todo!()
    }
    /// Waits without blocking a thread. Dropping the future gives back what it was about to receive.
    pub(crate) async fn take_async(&self) -> Taken {
        todo!()
    }
    /// Raises the token to at least this. Only for whoever holds it.
    pub(crate) fn raise_token(&self, token: Token) {
        let _ = token;
        todo!()
    }
    /// Lets go. Only for whoever holds it, once.
    pub(crate) fn release(&self, how: Predecessor) {
        let _ = how;
        todo!()
    }
}
#[allow(unused)]
fn _unused(_: LockError) {}

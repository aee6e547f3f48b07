//! What a service does with the leases of guards that stand apart, if it can: other modes for them.

use std::{future::Future, sync::Arc};

use crate::{error::Result, host::lease_word::LeaseWord, time::Time, token::Token};

/// Changes the mode of leases that are held.
pub(crate) trait ConvertsLeases: Send + Sync {
    /// An upgradable lease, in a word of its own, is to be exclusive, before all that wait: once no other
    /// shares it. One that only `tries` fails if another does. A lost lease fails it.
    fn upgrade(self: Arc<Self>, word: &LeaseWord, tries: bool) -> Box<dyn PendingUpgrade>;

    /// A lease in a word of its own is this from now on, and readers come in beside it. Its token becomes
    /// [another](LeaseWord::bear) once the service has counted that. Never blocks, never fails.
    fn downgrade(&self, word: &LeaseWord, to: ReaderMode, last_used: Token);

    /// The same of an exclusive lease: the guard with this token is in the name's word, and moves with it to a
    /// word of its own. `None`: it is lost.
    fn set_apart(&self, word: &LeaseWord, to: ReaderMode, token: Token) -> Option<Arc<LeaseWord>>;
}

/// What a lease becomes that lets readers in beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderMode {
    Upgradable,
    Shared,
}

/// An upgrade under way; the token that the writer has is its answer. Dropping it gives it up, answered or
/// not: the lease is upgradable then.
#[must_use = "an upgrade that is dropped is given up"]
pub(crate) trait PendingUpgrade: Future<Output = Result<Token>> + Send + Unpin {
    /// Blocks the calling thread at most until then: `None` if there is no answer by that time.
    fn wait_until(&mut self, until: Time) -> Option<Result<Token>>;
}

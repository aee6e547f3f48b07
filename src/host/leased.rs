//! Leases in their words, as the guards of tests have them.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    client::link::{Acquiring, Link},
    lease_word::{Claim, LeaseWord, Left, Used},
    service::{LeaseMode, LeasePatience, LeaseRequest, LeaseService, Settlement},
};
use crate::{
    error::{LockError, LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
    watch::{Lost, Watch},
};

/// A request that waits without limit for a lease that is not kept.
pub(super) fn want(text: &str) -> LeaseRequest {
    LeaseRequest {
        name: Name::new(text).unwrap(),
        patience: LeasePatience::Until(Time::NEVER),
        mode: LeaseMode::Exclusive,
        value: None,
        blocks: false,
        lapses: false,
        after: None,
        answer_by: None,
        above: Token::ZERO,
        at_most: None,
        at_least: None,
        keep: false,
        word: Arc::new(LeaseWord::new()),
        has_moved: false,
        settlement: Settlement::default(),
    }
}

pub(super) fn take(link: &Arc<Link>, text: &str) -> Leased {
    ask(link, want(text)).wait().unwrap()
}

pub(super) fn give(link: &Link, lease: Leased) {
    let used = lease.leave();
    link.give_back(&lease.word, &used);
}

/// A word of that link's, open with a lease of its own that stays; its first guard is gone.
pub(super) fn take_to_keep(link: &Arc<Link>, text: &str) -> Arc<LeaseWord> {
    let Leased { word, token, .. } =
        ask(link, LeaseRequest { keep: true, ..want(text) }).wait().unwrap();
    assert_eq!(word.leave(token, Predecessor::Clean), Left::Kept);
    word
}

/// The lease that a guard has.
#[derive(Clone)]
pub(super) struct Leased {
    pub(super) word: Arc<LeaseWord>,
    pub(super) token: Token,
    pub(super) predecessor: Predecessor,
}

impl fmt::Debug for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Leased {
    pub(super) fn watch(&self) -> Arc<Watch> {
        self.word.watch()
    }

    /// Waits for its loss.
    pub(super) fn wait_for_loss(&self) -> LostReason {
        futures::executor::block_on(Lost::new(Some(self.watch())))
    }

    /// The guard leaves, and the lease does not stay.
    fn leave(&self) -> Used {
        let _ = self.word.lost_by(crate::clock::now);
        match self.word.leave(self.token, Predecessor::Clean) {
            Left::GivesBack(used) => used,
            left => panic!("it is not kept, and {left:?}"),
        }
    }

    pub(super) async fn give_answered(self, link: &Arc<Link>) -> Result<(), LockError> {
        let used = self.leave();
        link.release_answered(&self.word, &used).await
    }
}

/// A request, and the claim that follows its grant.
pub(super) struct LeasedTaking(Acquiring, Arc<LeaseWord>);

/// Asks, with a word of that link's.
pub(super) fn ask(link: &Arc<Link>, request: LeaseRequest) -> LeasedTaking {
    let word = Arc::new(LeaseWord::of(link.word_deadline(), link.made_in()));
    LeasedTaking(link.acquire(LeaseRequest { word: word.clone(), ..request }), word)
}

/// A lease can be lost between its grant and its claim: the connection ends, say.
fn claim(word: Arc<LeaseWord>) -> Result<Leased, LockError> {
    match word.claim() {
        Claim::Entered(entered) => {
            Ok(Leased { word, token: entered.token, predecessor: entered.predecessor })
        }
        Claim::Closed(Some(lost)) => Err(LockError::lost(lost)),
        claim => panic!("it was granted, and {claim:?}"),
    }
}

impl LeasedTaking {
    pub(super) fn wait(self) -> Result<Leased, LockError> {
        let LeasedTaking(acquiring, word) = self;
        acquiring.wait().and_then(|_| claim(word))
    }
}

impl Future for LeasedTaking {
    type Output = Result<Leased, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(granted.and_then(|_| claim(self.1.clone())))
    }
}

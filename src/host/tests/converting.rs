//! Upgrades of leases in words of their own, while their link ends.

use std::pin::Pin;

use super::*;
use crate::host::{
    exit::LeavesAtExit,
    lease_word::Claim,
    service::{ConvertsLeases, LeaseMode, PendingUpgrade},
};

fn take_apart(link: &Arc<Link>, text: &str, mode: LeaseMode) -> Arc<LeaseWord> {
    let word = Arc::new(LeaseWord::of(link.word_deadline(), link.made_in()));
    let request = LeaseRequest { word: word.clone(), mode, ..want(text) };
    link.acquire(request).wait().unwrap();
    assert!(matches!(word.claim_shared(false), Claim::Entered(_)));
    word
}

fn poll(upgrade: &mut Box<dyn PendingUpgrade>) -> Poll<Result<crate::token::Token, LockError>> {
    Pin::new(upgrade).poll(&mut Context::from_waker(Waker::noop()))
}

/// One that waits for a reader elsewhere.
fn waiting_upgrade(link: &Arc<Link>, other: &Arc<Link>) -> Box<dyn PendingUpgrade> {
    take_apart(other, "a", LeaseMode::Shared);
    let word = take_apart(link, "a", LeaseMode::Upgradable);
    let mut upgrade = link.clone().upgrade(&word, false);
    assert!(poll(&mut upgrade).is_pending());
    upgrade
}

#[test]
fn an_upgrade_is_told_that_its_link_was_closed() {
    let town = Town::new();
    let leader = town.leader();
    let (link, other) = (town.link(&leader), town.link(&leader));
    let mut upgrade = waiting_upgrade(&link, &other);
    close(&link);
    match poll(&mut upgrade) {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), LockErrorKind::Config),
        other => panic!("{other:?}"),
    }
}

/// Other threads run on for a moment and are not to see their waits fail.
#[test]
fn an_upgrade_that_waits_while_its_process_ends_is_told_nothing() {
    let town = Town::new();
    let leader = town.leader();
    let (link, other) = (town.link(&leader), town.link(&leader));
    let mut upgrade = waiting_upgrade(&link, &other);
    link.leave(clock::now());
    assert!(poll(&mut upgrade).is_pending());
}

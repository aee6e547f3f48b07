//! Directories that hang while a request of their manager is settled.

use std::{
    future::Future as _,
    pin::pin,
    sync::mpsc::{Receiver, Sender, channel},
    task::{Context, Waker},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    error::{LockErrorKind, Predecessor},
    host::{
        client::carrier::tests::Household,
        lease_word::Left,
        leased::{Leased, ask, give, take, want},
        service::{LeasePatience, LeaseRequest, LeaseService, Settle, Settlement},
        tests::close,
    },
    name::Name,
    token::Token,
};

const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum SlotStep {
    Raises,
    PassedOn,
    Releases,
}

/// A slot of a directory that hangs at each step until it is let go.
struct HangingSlot {
    tells: Sender<SlotStep>,
    goes_on: Receiver<()>,
}

impl HangingSlot {
    fn hang(&self, step: SlotStep) {
        let _ = self.tells.send(step);
        let _ = self.goes_on.recv();
    }
}

impl Settle for HangingSlot {
    fn may_block(&self, _: Option<Token>) -> bool {
        true
    }

    fn raise(&mut self, _: Token) {
        self.hang(SlotStep::Raises);
    }

    fn pass_on(&mut self) {
        let _ = self.tells.send(SlotStep::PassedOn);
    }

    fn release(self: Box<Self>) {
        self.hang(SlotStep::Releases);
    }
}

/// The hand on such a slot.
struct Hanging {
    told: Receiver<SlotStep>,
    lets_go: Sender<()>,
}

impl Hanging {
    fn new() -> (Hanging, Settlement) {
        let ((tells, told), (lets_go, goes_on)) = (channel(), channel());
        let slot = Box::new(HangingSlot { tells, goes_on });
        (Hanging { told, lets_go }, Settlement::new(slot))
    }

    fn comes_to(&self, step: SlotStep) {
        assert_eq!(self.told.recv_timeout(LONG), Ok(step));
    }

    fn let_go(&self) {
        self.lets_go.send(()).unwrap();
    }
}

/// The work is done while the directory hangs.
fn while_it_hangs(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    is_done.recv_timeout(LONG).expect("another's directory hangs, and this waits for it");
}

fn hanging(settlement: Settlement) -> LeaseRequest {
    LeaseRequest { settlement, ..want("a") }
}

fn cycles(link: &Arc<Link>) {
    for _ in 0..20 {
        give(link, take(link, "b"));
        let lease = futures::executor::block_on(ask(link, want("b"))).unwrap();
        give(link, lease);
    }
}

fn two_links() -> (Household, crate::host::Leader, [Arc<Link>; 2]) {
    let household = Household::new();
    let leader = household.town.leader();
    let links = [0; 2].map(|_| household.link(leader.local_addr()));
    links.iter().for_each(cycles);
    (household, leader, links)
}

#[test]
fn a_directory_that_hangs_at_a_grant_holds_up_its_caller_and_no_other() {
    let (_household, _leader, [one, other]) = two_links();
    let (slot, settlement) = Hanging::new();
    let (its, others) = (one.clone(), one.clone());
    let waiting = thread::spawn(move || ask(&its, hanging(settlement)).wait());
    slot.comes_to(SlotStep::Raises);
    while_it_hangs(move || cycles(&other));
    while_it_hangs(move || cycles(&others));
    assert!(!waiting.is_finished());
    slot.let_go();
    slot.comes_to(SlotStep::PassedOn);
    slot.comes_to(SlotStep::Releases);
    assert!(!waiting.is_finished(), "what it asks next would find the slot taken");
    slot.let_go();
    let lease = waiting.join().unwrap().unwrap();
    assert_eq!(lease.watch().lost(), None);
    give(&one, lease);
    cycles(&one);
}

#[test]
fn a_lease_that_is_lost_while_its_directory_hangs_is_never_good() {
    let (_household, _leader, [one, other]) = two_links();
    let (slot, settlement) = Hanging::new();
    let its = one.clone();
    let waiting = thread::spawn(move || ask(&its, hanging(settlement)).wait());
    slot.comes_to(SlotStep::Raises);
    let name = Name::new("a").unwrap();
    let token = other.list(Some(&name), None).unwrap()[0].token;
    assert!(other.break_lock(&name, token, None).wait().unwrap());
    // The leader has heard that no guard believes in it.
    let theirs = take(&other, "a");
    assert!(theirs.token > token);
    slot.let_go();
    slot.comes_to(SlotStep::PassedOn);
    slot.comes_to(SlotStep::Releases);
    slot.let_go();
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
    assert_eq!(theirs.watch().lost(), None);
    give(&other, theirs);
    give(&one, take(&one, "a"));
}

#[test]
fn what_is_granted_to_a_caller_that_goes_while_its_directory_hangs_goes_back() {
    let (_household, _leader, [one, other]) = two_links();
    let (slot, settlement) = Hanging::new();
    let mut waiting = ask(&one, hanging(settlement));
    let waker = Waker::noop();
    assert!(pin!(&mut waiting).poll(&mut Context::from_waker(waker)).is_pending());
    slot.comes_to(SlotStep::Raises);
    drop(waiting);
    give(&other, take(&other, "a"));
    slot.let_go();
    // Nothing was opened.
    slot.comes_to(SlotStep::Releases);
    slot.let_go();
    give(&one, take(&one, "a"));
}

#[test]
fn a_lease_that_is_asked_back_while_its_directory_hangs_goes_with_its_first_guard() {
    let (_household, _leader, [one, other]) = two_links();
    let (slot, settlement) = Hanging::new();
    let its = one.clone();
    let request = LeaseRequest { keep: true, ..hanging(settlement) };
    let waiting = thread::spawn(move || ask(&its, request).wait());
    slot.comes_to(SlotStep::Raises);
    let theirs = other.clone();
    let next = thread::spawn(move || take(&theirs, "a"));
    let name = Name::new("a").unwrap();
    while other.list(Some(&name), None).unwrap()[0].waiters.is_empty() {
        thread::yield_now();
    }
    // What comes on its connection comes in order: it has heard of the recall by then.
    cycles(&one);
    for _ in 0..2 {
        slot.let_go();
    }
    let Leased { word, token, .. } = waiting.join().unwrap().unwrap();
    let Left::GivesBack(used) = word.leave(token, Predecessor::Clean) else {
        panic!("another waits for it");
    };
    one.give_back(&word, &used);
    give(&other, next.join().unwrap());
}

#[test]
fn a_caller_that_is_refused_is_told_once_its_slot_is_free() {
    let (_household, _leader, [one, other]) = two_links();
    let theirs = take(&other, "a");
    let (slot, settlement) = Hanging::new();
    let its = one.clone();
    let request = LeaseRequest { patience: LeasePatience::No, ..hanging(settlement) };
    let waiting = thread::spawn(move || ask(&its, request).wait());
    slot.comes_to(SlotStep::Releases);
    while_it_hangs(move || cycles(&one));
    assert!(!waiting.is_finished());
    slot.let_go();
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LockErrorKind::WouldBlock);
    give(&other, theirs);
}

#[test]
fn a_manager_that_ends_while_its_directory_hangs_keeps_no_thread_of_others() {
    let (household, _leader, [one, other]) = two_links();
    let (slot, settlement) = Hanging::new();
    let mut waiting = ask(&one, hanging(settlement));
    let waker = Waker::noop();
    assert!(pin!(&mut waiting).poll(&mut Context::from_waker(waker)).is_pending());
    slot.comes_to(SlotStep::Raises);
    while_it_hangs(move || {
        close(&one);
        drop((waiting, one));
    });
    while_it_hangs(move || {
        cycles(&other);
        close(&other);
    });
    household.see_the_thread_end();
    slot.let_go();
    slot.comes_to(SlotStep::Releases);
    slot.let_go();
}

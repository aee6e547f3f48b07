//! Situations at the lease word, one thread at a time.

use std::sync::mpsc::channel;

use super::*;

const LEASE: LeaseKey = LeaseKey { high: 2, low: 9 };

fn number(count: u64) -> Token {
    Token::new(Token::first_of(2).get() + count).unwrap()
}

fn opening(first: u64, last: u64) -> Opening {
    Opening {
        lease: LEASE,
        first: number(first),
        last: number(last),
        predecessor: Predecessor::Clean,
        at_most: None,
        keeps: true,
        is_shared: false,
    }
}

/// Reserved for the representative.
fn opened(first: u64, last: u64) -> LeaseWord {
    let word = LeaseWord::new();
    word.open(opening(first, last));
    word
}

/// In use by its first guard.
fn in_use(first: u64, last: u64) -> LeaseWord {
    let word = opened(first, last);
    assert_eq!(claim(&word).token, number(first));
    word
}

/// Idle, and its first token used.
fn idle(first: u64, last: u64) -> LeaseWord {
    let word = in_use(first, last);
    assert_eq!(leave(&word, first), Left::Kept);
    word
}

fn claim(word: &LeaseWord) -> Entered {
    match word.claim() {
        Claim::Entered(entered) => entered,
        claim => panic!("{claim:?}"),
    }
}

fn enter(word: &LeaseWord) -> Entered {
    match word.enter() {
        Entering::Entered(entered) => entered,
        entering => panic!("{entering:?}"),
    }
}

fn leave(word: &LeaseWord, count: u64) -> Left {
    word.leave(number(count), Predecessor::Clean)
}

fn given_back(left: Left) -> Used {
    match left {
        Left::GivesBack(used) => used,
        left => panic!("{left:?}"),
    }
}

#[test]
fn tokens_of_a_block_are_taken_one_after_the_other() {
    let word = opened(10, 12);
    assert_eq!(word.enter(), Entering::Refused, "it is the representative's");
    assert_eq!(claim(&word).token, number(10));
    assert_eq!((word.enter(), word.claim()), (Entering::Refused, Claim::Held));
    assert_eq!(word.leave(number(10), Predecessor::Panicked), Left::Kept);
    let entered = enter(&word);
    assert_eq!((entered.token, entered.predecessor), (number(11), Predecessor::Panicked));
    assert_eq!(leave(&word, 11), Left::Kept);
    let entered = claim(&word);
    assert_eq!((entered.token, entered.predecessor), (number(12), Predecessor::Clean));
    assert_eq!(leave(&word, 12), Left::Kept);
    let used = word.close_idle().unwrap();
    assert_eq!((used.lease, used.last), (LEASE, number(12)));
    assert_eq!((used.local_grants, used.is_recalled, used.keeps), (2, false, true));
    assert_eq!((word.enter(), word.close_idle()), (Entering::Refused, None));
    assert_eq!(word.claim(), Claim::Closed(None));
}

#[test]
fn a_block_that_is_used_up_is_closed_by_the_thread_that_finds_it_so() {
    for is_representative in [false, true] {
        let word = idle(10, 10);
        let used = match is_representative {
            false => match word.enter() {
                Entering::UsedUp(used) => used,
                entering => panic!("{entering:?}"),
            },
            true => match word.claim() {
                Claim::UsedUp(used) => used,
                claim => panic!("{claim:?}"),
            },
        };
        assert_eq!((used.last, used.local_grants, used.is_recalled), (number(10), 0, false));
        assert_eq!(word.claim(), Claim::Closed(None));
    }
}

/// Seed 1132 of the simulator: the count after the last of an epoch is no token of it.
#[test]
fn a_block_at_the_end_of_its_epoch_ends_there() {
    let word = idle(COUNT - 1, COUNT);
    assert_eq!(enter(&word).token, number(COUNT));
    assert_eq!(leave(&word, COUNT), Left::Kept);
    assert_eq!(word.enter(), Entering::Refused);
    let Claim::UsedUp(used) = word.claim() else { panic!("no token follows") };
    assert_eq!(used.last, number(COUNT));
}

#[test]
fn a_block_that_goes_on_is_used_on_and_half_of_it_asks_for_more() {
    let word = idle(10, 14);
    let short: Vec<_> = (11..=14)
        .map(|count| {
            let entered = enter(&word);
            leave(&word, count);
            entered.is_running_short
        })
        .collect();
    assert_eq!(short, [false, true, false, false]);
    word.extend(number(20));
    let entered = enter(&word);
    assert_eq!((entered.token, entered.is_running_short), (number(15), false));
}

#[test]
fn a_recall_meets_an_idle_word_or_a_guard_that_gives_back() {
    let word = in_use(10, 100);
    assert_eq!(word.recall(), Met::InUse { is_watched: false, is_lost: false });
    let used = given_back(word.leave(number(10), Predecessor::Panicked));
    let what = (used.last, used.how, used.is_recalled);
    assert_eq!(what, (number(10), Predecessor::Panicked, true));
    assert_eq!((word.enter(), word.recall()), (Entering::Refused, Met::Closed));

    let word = idle(200, 300);
    let Met::Idle(used) = word.recall() else { panic!("no guard is in") };
    assert_eq!((used.last, used.is_recalled), (number(200), true));
    assert_eq!((word.enter(), word.recall()), (Entering::Refused, Met::Closed));
}

#[test]
fn a_recall_of_a_reserved_word_waits_for_its_representative() {
    let word = opened(10, 100);
    assert_eq!(word.recall(), Met::Reserved);
    assert_eq!(claim(&word).token, number(10));
    assert_eq!(given_back(leave(&word, 10)).last, number(10));

    let word = opened(10, 100);
    assert_eq!(word.recall(), Met::Reserved);
    let used = word.give_up().expect("it does not stay");
    assert_eq!((used.last, used.local_grants), (number(9), 0));
    assert_eq!(word.claim(), Claim::Closed(None));
}

#[test]
fn a_lease_that_is_not_to_be_kept_goes_with_its_first_guard() {
    let word = LeaseWord::new();
    word.open(Opening { keeps: false, ..opening(10, 10) });
    assert!(!claim(&word).is_running_short, "it needs no further block");
    let used = given_back(leave(&word, 10));
    assert_eq!((used.last, used.keeps, used.is_recalled), (number(10), false, false));
}

#[test]
fn a_loss_closes_what_is_reserved_or_idle_and_says_why() {
    let word = opened(10, 100);
    let Met::Idle(used) = word.lose(LostReason::Broken) else { panic!("no guard is in") };
    assert_eq!(used.last, number(9));
    assert_eq!(word.claim(), Claim::Closed(Some(LostReason::Broken)));
    word.open(opening(20, 100));
    claim(&word);
    leave(&word, 20);
    assert!(matches!(word.lose(LostReason::Expired), Met::Idle(_)));
    assert_eq!(word.claim(), Claim::Closed(Some(LostReason::Expired)));
    assert_eq!(word.lose(LostReason::Broken), Met::Closed);
}

/// Its guard is still in: another of this process would have the same data.
#[test]
fn a_lost_lease_keeps_its_word_closed_to_others_until_its_guard_leaves() {
    let word = in_use(10, 100);
    assert_eq!(word.lose(LostReason::Broken), Met::InUse { is_watched: false, is_lost: false });
    assert_eq!(word.lose(LostReason::Expired), Met::InUse { is_watched: false, is_lost: true });
    assert_eq!(word.lost(), Some(LostReason::Broken));
    assert_eq!((word.enter(), word.claim()), (Entering::Refused, Claim::Held));
    assert_eq!(given_back(leave(&word, 10)).lost, Some(LostReason::Broken));
    assert_eq!(word.lost(), None, "there is no guard");
}

#[test]
fn a_guard_that_is_not_in_changes_nothing() {
    let word = idle(10, 100);
    enter(&word);
    assert_eq!(leave(&word, 10), Left::Stale);
    word.recall();
    assert_eq!(leave(&word, 10), Left::Stale);
    assert_eq!(word.leave_and_close(number(10), Predecessor::Clean), None);
    given_back(leave(&word, 11));
    assert_eq!(leave(&word, 11), Left::Stale);
}

#[test]
fn a_representative_that_waits_is_woken_and_a_hungry_one_is_handed_the_word() {
    let (word, other) = (in_use(10, 100), std::task::Waker::noop());
    assert!(word.register(false, other));
    assert_eq!(leave(&word, 10), Left::Wakes);
    assert_eq!(enter(&word).token, number(11), "any thread may be quicker");
    assert!(word.register(true, other));
    assert_eq!(word.leave(number(11), Predecessor::Panicked), Left::Wakes);
    assert_eq!(word.enter(), Entering::Refused);
    let entered = claim(&word);
    assert_eq!((entered.token, entered.predecessor), (number(12), Predecessor::Panicked));
    assert_eq!(leave(&word, 12), Left::Kept);
    assert!(!word.register(true, other), "there is something to claim");
}

#[test]
fn a_recall_goes_before_a_hungry_representative() {
    let word = in_use(10, 100);
    assert!(word.register(true, std::task::Waker::noop()));
    word.recall();
    given_back(leave(&word, 10));
    assert_eq!(word.claim(), Claim::Closed(None));
}

#[test]
fn a_block_without_a_token_for_a_hungry_representative_goes_back() {
    let word = in_use(10, 10);
    assert!(word.register(true, std::task::Waker::noop()));
    assert_eq!(given_back(leave(&word, 10)).last, number(10));
    assert_eq!(word.claim(), Claim::Closed(None));
}

#[test]
fn a_representative_that_gives_up_leaves_neither_mark_nor_reservation() {
    let word = in_use(10, 100);
    assert!(word.register(true, std::task::Waker::noop()));
    assert_eq!(word.give_up(), None);
    assert_eq!(leave(&word, 10), Left::Kept);
    enter(&word);
    assert!(word.register(true, std::task::Waker::noop()));
    assert_eq!(word.leave(number(11), Predecessor::Panicked), Left::Wakes);
    assert_eq!(word.give_up(), None, "it stays");
    let entered = enter(&word);
    assert_eq!((entered.token, entered.predecessor), (number(12), Predecessor::Panicked));
}

/// The count before the first of an epoch is no token of it, so the word cannot be idle with it.
#[test]
fn a_reservation_of_an_epochs_first_token_that_is_given_up_goes_back() {
    let word = opened(0, 100);
    let used = word.give_up().expect("it does not stay");
    assert_eq!(used.last.get(), number(0).get() - 1);
}

/// A request that ends late takes back what is reserved, and nothing of a representative that waits.
#[test]
fn a_late_end_of_a_granted_request_leaves_the_mark_of_the_next_representative() {
    let word = in_use(10, 100);
    assert!(word.register(true, std::task::Waker::noop()));
    assert_eq!(word.give_up_reserved(), None);
    assert_eq!(leave(&word, 10), Left::Wakes);
}

#[test]
fn a_sleeping_thread_is_woken_by_the_guard_that_leaves() {
    let word = Arc::new(in_use(10, 100));
    let sleeping = word.clone();
    let representative = std::thread::spawn(move || {
        loop {
            match sleeping.claim() {
                Claim::Held => sleeping.sleep(true, Time::NEVER),
                Claim::Entered(entered) => return entered.token,
                claim => panic!("{claim:?}"),
            }
        }
    });
    while word.word.load(Acquire) & HUNGRY == 0 {
        std::thread::yield_now();
    }
    assert_eq!(leave(&word, 10), Left::Wakes);
    word.wake();
    assert_eq!(representative.join().unwrap(), number(11));
}

#[test]
fn a_word_that_was_closed_and_opened_is_no_longer_of_the_first_lease() {
    let word = idle(10, 100);
    assert!(word.is_of(LEASE));
    word.close_idle();
    assert!(!word.is_of(LEASE));
    let lease = LeaseKey { low: 10, ..LEASE };
    word.open(Opening { lease, ..opening(200, 300) });
    assert!(word.is_of(lease) && !word.is_of(LEASE));
}

#[test]
fn a_guard_hears_of_its_loss_once_and_by_its_first_reason() {
    let word = in_use(10, 100);
    assert_eq!(word.lost(), None);
    let watch = word.watch();
    assert_eq!(watch.told(), None);
    assert_eq!(word.lose(LostReason::Broken), Met::InUse { is_watched: true, is_lost: false });
    assert_eq!(word.lose(LostReason::Expired), Met::InUse { is_watched: true, is_lost: true });
    assert_eq!(word.lost(), Some(LostReason::Broken));
    given_back(leave(&word, 10));

    word.open(opening(200, 300));
    claim(&word);
    word.lose(LostReason::Expired);
    // Asked for afterwards, it knows.
    assert_eq!(word.watch().lost(), Some(LostReason::Expired));
}

#[test]
fn a_guard_that_finds_its_deadline_passed_is_told_at_once() {
    let deadline = Arc::new(Deadline::new(Time::from_nanos(50)));
    let word = LeaseWord::of(deadline, 0);
    word.open(opening(10, 100));
    claim(&word);
    assert_eq!(word.lost_by(|| Time::from_nanos(49)), None);
    let watch = word.watch();
    assert_eq!(word.lost_by(|| Time::from_nanos(50)), Some(LostReason::Expired));
    assert_eq!(watch.told(), Some(LostReason::Expired));
    assert_eq!(given_back(leave(&word, 10)).lost, Some(LostReason::Expired));
}

#[test]
fn the_end_of_a_lease_of_its_own_stands_in_its_word_and_not_in_the_next() {
    let word = LeaseWord::of(Arc::new(Deadline::new(Time::from_nanos(90))), 0);
    let at_most = Some(Time::from_nanos(50));
    word.open(Opening { at_most, keeps: false, ..opening(10, 10) });
    claim(&word);
    assert_eq!(
        (word.deadline(), word.watch().deadline()),
        (Time::from_nanos(50), Time::from_nanos(50))
    );
    assert_eq!(word.lost_by(|| Time::from_nanos(50)), Some(LostReason::HeldTooLong));
    given_back(leave(&word, 10));
    word.open(opening(20, 100));
    claim(&word);
    assert_eq!(word.deadline(), Time::from_nanos(90));
    assert_eq!(word.lost_by(|| Time::from_nanos(60)), None);
}

/// By the guard's own look at the clock, say, before the driver looked at its own.
#[test]
fn a_loss_that_was_told_by_nothing_yet_is_told_when_the_guard_leaves() {
    let word = in_use(10, 13);
    let (tell, told) = channel();
    word.watch().on_lost(Box::new(move |why| tell.send(why).unwrap()));
    word.lose(LostReason::Expired);
    given_back(leave(&word, 10));
    assert_eq!(told.recv(), Ok(LostReason::Expired));
}

#[test]
fn a_watch_ends_with_its_guard() {
    let word = in_use(10, 100);
    let watch = word.watch();
    assert_eq!(leave(&word, 10), Left::Kept);
    assert!(word.watched().is_empty());
    enter(&word);
    word.lose(LostReason::Broken);
    assert_eq!(watch.lost(), None, "it was released in good order");
}

#[test]
fn what_was_used_since_is_not_closed_as_unused() {
    let word = idle(10, 100);
    let seen = word.idle().unwrap();
    enter(&word);
    assert_eq!((word.idle(), word.close_unused(seen)), (None, None));
    leave(&word, 11);
    assert_eq!(word.close_unused(seen), None);
    assert!(word.close_unused(word.idle().unwrap()).is_some());
}

#[test]
fn a_lease_is_wanted_for_keeping_after_some_grants_in_a_row() {
    let word = LeaseWord::new();
    (0..2).for_each(|_| word.granted(false));
    assert!(!word.is_wanted(false));
    assert!(word.is_wanted(true));
    word.granted(false);
    assert!(word.is_wanted(false));
    // Another session had it.
    word.granted(true);
    assert!(!word.is_wanted(false));
}

#[test]
fn after_a_recall_that_paid_a_lease_is_kept_again_and_while_two_take_turns_ever_more_seldom() {
    let word = LeaseWord::new();
    let recalled_after = |local_grants| Used {
        lease: LEASE,
        last: number(local_grants),
        how: Predecessor::Clean,
        local_grants,
        is_recalled: true,
        keeps: true,
        lost: None,
    };
    let grants_until_wanted = || {
        let grants = 0..1_000;
        let mut grants = grants.take_while(|_| {
            let is_wanted = word.is_wanted(false);
            word.granted(false);
            !is_wanted
        });
        grants.by_ref().count()
    };
    word.granted(true);
    assert!(!word.gone(&recalled_after(4995)), "it paid");
    assert!(word.is_wanted(false));
    // The session that asked for it has it just now.
    word.granted(true);
    for expected in [12, 48, 192, 192] {
        assert!(word.gone(&recalled_after(2)), "it did not");
        assert_eq!(grants_until_wanted(), expected);
    }
    assert!(!word.gone(&recalled_after(16)));
    assert_eq!(grants_until_wanted(), 0);
}

/// Reserved for a representative that reads.
fn opened_shared(keeps: bool) -> LeaseWord {
    let word = LeaseWord::new();
    word.open(Opening { is_shared: true, keeps, ..opening(10, 10) });
    word
}

/// The same with one reader.
fn read_once(keeps: bool) -> LeaseWord {
    let word = opened_shared(keeps);
    let claim = word.claim_shared(true);
    assert!(matches!(claim, Claim::Entered(entered) if entered.token == number(10)), "{claim:?}");
    word
}

#[test]
fn readers_share_a_word_and_no_guard_enters_it() {
    let word = opened_shared(true);
    assert_eq!(word.read(), None, "it is the representative's");
    let claim = word.claim_shared(true);
    assert!(matches!(claim, Claim::Entered(entered) if entered.token == number(10)), "{claim:?}");
    assert_eq!(word.read(), Some((number(10), Predecessor::Clean)));
    assert!(matches!(word.enter(), Entering::Refused));
    assert_eq!(word.claim(), Claim::Held);
    assert_eq!(word.claim_shared(false), Claim::Held, "one with terms of its own joins no others");
    assert_eq!((word.leave_shared(), word.leave_shared()), (Left::Kept, Left::Kept));
    // Idle it is still for readers alone.
    assert!(matches!(word.enter(), Entering::Refused));
    assert_eq!(word.claim(), Claim::Held);
    assert_eq!(word.read(), Some((number(10), Predecessor::Clean)));
}

#[test]
fn a_recalled_share_lets_no_reader_in_and_goes_with_the_last_that_is_inside() {
    let word = read_once(true);
    word.read().unwrap();
    assert_eq!(word.recall(), Met::InUse { is_watched: false, is_lost: false });
    assert_eq!((word.read(), word.claim_shared(true)), (None, Claim::Held));
    assert_eq!(word.leave_shared(), Left::Kept);
    let left = word.leave_shared();
    let Left::GivesBack(Used { lease, last, lost: None, .. }) = left else { panic!("{left:?}") };
    assert_eq!((lease, last), (LEASE, number(10)));
    assert_eq!((word.read(), word.claim_shared(true)), (None, Claim::Closed(None)));
}

#[test]
fn an_idle_share_goes_back_at_a_recall_and_a_reserved_one_when_it_was_used() {
    let word = read_once(true);
    word.leave_shared();
    assert!(matches!(word.recall(), Met::Idle(Used { last, .. }) if last == number(10)));
    assert_eq!(word.recall(), Met::Closed);

    let word = opened_shared(true);
    assert_eq!(word.recall(), Met::Reserved);
    assert!(matches!(word.claim_shared(true), Claim::Entered(_)));
    assert_eq!(word.read(), None);
    assert!(matches!(word.leave_shared(), Left::GivesBack(_)));

    let word = opened_shared(true);
    let used = word.give_up().expect("it was not used");
    assert_eq!(used.last, number(9));
}

#[test]
fn a_share_that_is_not_kept_is_joined_by_no_reader() {
    let word = read_once(false);
    assert_eq!((word.read(), word.claim_shared(true)), (None, Claim::Held));
    assert!(matches!(word.leave_shared(), Left::GivesBack(_)));
}

#[test]
fn a_lost_share_keeps_the_word_until_its_last_reader_leaves_and_tells_each() {
    let word = read_once(true);
    word.read().unwrap();
    word.read().unwrap();
    let [one, gone] = [(), ()].map(|()| word.watch_for_reader());
    word.end_reader_watch(&gone);
    word.leave_shared();
    assert_eq!(word.lose(LostReason::Expired), Met::InUse { is_watched: true, is_lost: false });
    let told = word.watched();
    assert!(told.len() == 1 && Arc::ptr_eq(&told[0], &one));
    assert_eq!(word.lost(), Some(LostReason::Expired));
    assert_eq!(
        (word.read(), word.claim(), word.claim_shared(true)),
        (None, Claim::Held, Claim::Held)
    );
    assert_eq!(word.leave_shared(), Left::Kept);
    let left = word.leave_shared();
    let is_lost = |used: Used| used.lost == Some(LostReason::Expired);
    assert!(matches!(left, Left::GivesBack(used) if is_lost(used)), "{left:?}");
}

#[test]
fn a_writer_that_waits_holds_new_readers_up_and_is_woken_by_the_last_inside() {
    let word = read_once(true);
    word.read().unwrap();
    let (tell, told) = channel();
    let waker = std::task::Waker::from(Arc::new(Telling(tell)));
    assert!(word.register(false, &waker));
    assert_eq!(word.read(), None);
    assert_eq!(word.leave_shared(), Left::Kept);
    assert!(matches!(word.leave_shared(), Left::GivesBack(_)));
    word.wake();
    told.try_recv().expect("the writer was woken");
    assert_eq!(word.claim(), Claim::Closed(None));
}

#[test]
fn a_reader_that_is_handed_an_exclusive_word_has_no_use_for_it() {
    let word = in_use(10, 100);
    assert!(word.register(true, std::task::Waker::noop()));
    assert_eq!(leave(&word, 10), Left::Wakes);
    // It is reserved: neither idle nor in use.
    assert_eq!((word.claim_shared(true), word.close_idle()), (Claim::Held, None));
    let used = word.refuse_reserved().expect("it was reserved for the reader");
    assert_eq!(used.last, number(10));
    assert_eq!(word.claim_shared(true), Claim::Closed(None));
    assert_eq!(word.refuse_reserved(), None);
}

#[test]
fn an_idle_share_shows_that_it_was_used_since() {
    let word = read_once(true);
    word.leave_shared();
    let seen = word.idle().expect("no reader is in");
    word.read().unwrap();
    assert_eq!((word.idle(), word.close_idle()), (None, None));
    word.leave_shared();
    assert_ne!(word.idle(), Some(seen));
    assert_eq!(word.close_unused(seen), None);
    // However often it is used the count of uses stays within its bits.
    for _ in 0..(1 << 16) + 3 {
        assert_eq!(word.read(), Some((number(10), Predecessor::Clean)));
        word.leave_shared();
    }
    let seen = word.idle().expect("no reader is in");
    assert!(word.close_unused(seen).is_some());
}

struct Telling(std::sync::mpsc::Sender<()>);

impl std::task::Wake for Telling {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

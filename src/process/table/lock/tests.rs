//! Situations of one slot, with threads in the place of processes.

use std::{
    collections::HashMap,
    sync::{Barrier, atomic::AtomicU64},
    thread,
};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::{super::word::State, *};

const LONG: Duration = Duration::from_secs(60);

/// Processes by what is told of them; who is not named is alive.
#[derive(Default)]
struct Told {
    verdicts: Mutex<HashMap<OwnerId, Verdict>>,
    asked: Mutex<Vec<OwnerId>>,
    replaced: bool,
}

impl Told {
    fn of(owner: OwnerId, verdict: Verdict) -> Told {
        Told { verdicts: Mutex::new([(owner, verdict)].into()), ..Told::default() }
    }
}

impl Presences for Told {
    fn verdict(&self, owner: OwnerId, _: &mut Kept) -> Verdict {
        self.asked.lock().push(owner);
        self.verdicts.lock().get(&owner).copied().unwrap_or(Verdict::Alive)
    }

    fn check_mapped(&self) -> Result<(), LockError> {
        match self.replaced {
            true => Err(LockError::new(LockErrorKind::Damaged, "replaced")),
            false => Ok(()),
        }
    }
}

fn id(number: u64) -> OwnerId {
    OwnerId::new(number).unwrap()
}

fn word(slot: &Slot) -> Word {
    Word::from_bits(slot.word.load(Ordering::SeqCst))
}

/// A slot in this state.
fn slot(word: Word) -> Slot {
    Slot { word: word.bits().into(), ..Slot::default() }
}

fn tried(slot: &Slot, me: u64, presences: &Told) -> Option<Predecessor> {
    try_take(slot, id(me), 0, presences).unwrap()
}

fn taken(slot: &Slot, me: u64, presences: &Told) -> Predecessor {
    take(slot, id(me), 0, presences, clock::now() + LONG).unwrap()
}

fn failure(result: Result<Option<Predecessor>, Stop>) -> LockError {
    match result {
        Err(Stop::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Waits for what another thread is about to write.
fn until(slot: &Slot, is: impl Fn(Word) -> bool) {
    while !is(word(slot)) {
        thread::yield_now();
    }
}

#[test]
fn a_quiet_lock_is_two_words() {
    let (slot, told) = (Slot::default(), Told::default());
    assert_eq!(tried(&slot, 1, &told), Some(Predecessor::Clean));
    assert_eq!(word(&slot), Word::held(id(1)));
    release(&slot, id(1), Predecessor::Clean).unwrap();
    assert_eq!(word(&slot), Word::FREE);
    assert!(told.asked.lock().is_empty(), "nobody is asked whether anybody lives");
}

#[test]
fn a_try_asks_whether_the_holder_lives_before_it_says_held() {
    let (slot, told) = (slot(Word::held(id(1))), Told::default());
    assert_eq!(tried(&slot, 2, &told), None);
    assert_eq!(*told.asked.lock(), [id(1)]);
    assert_eq!(word(&slot), Word::held(id(1)), "and leaves no trace");
    let unknown = Told::of(id(1), Verdict::Unknown);
    assert_eq!(tried(&slot, 2, &unknown), None);
}

#[test]
fn a_death_is_told_once() {
    let (slot, told) = (slot(Word::held(id(1))), Told::of(id(1), Verdict::Dead));
    assert_eq!(tried(&slot, 2, &told), Some(Predecessor::Died));
    release(&slot, id(2), Predecessor::Clean).unwrap();
    assert_eq!(tried(&slot, 3, &told), Some(Predecessor::Clean));
}

#[test]
fn a_recovery_given_back_unused_is_told_again() {
    let (slot, told) = (slot(Word::held(id(1))), Told::of(id(1), Verdict::Dead));
    let left = tried(&slot, 2, &told).unwrap();
    release(&slot, id(2), left).unwrap();
    assert_eq!(word(&slot), Word::left_so(Predecessor::Died));
    assert_eq!(taken(&slot, 3, &told), Predecessor::Died);
}

#[test]
fn every_way_to_leave_is_told() {
    let (slot, told) = (Slot::default(), Told::default());
    let ways = [
        Predecessor::Clean,
        Predecessor::Panicked,
        Predecessor::Died,
        Predecessor::Expired,
        Predecessor::Broken,
    ];
    taken(&slot, 1, &told);
    for how in ways {
        release(&slot, id(1), how).unwrap();
        assert_eq!(tried(&slot, 1, &told), Some(how));
    }
}

#[test]
fn nobody_acts_on_a_death_while_the_table_is_another() {
    let slot = slot(Word::held(id(1)));
    let told = Told { replaced: true, ..Told::of(id(1), Verdict::Dead) };
    let error = failure(try_take(&slot, id(2), 0, &told));
    assert_eq!((error.kind(), error.to_string()), (LockErrorKind::Damaged, "replaced".into()));
    assert!(matches!(bury(&slot, &told), Err(Stop::Failed(_))));
    assert_eq!(word(&slot), Word::held(id(1)));
}

#[test]
fn a_holder_without_a_presence_is_damage() {
    let slot = slot(Word::held(id(7)));
    let told = Told::of(id(7), Verdict::Missing);
    let error = failure(try_take(&slot, id(2), 0, &told));
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("process 7"), "{error}");
}

#[test]
fn a_word_that_names_ourselves_is_damage_and_no_wait() {
    let slot = slot(Word::held(id(2)));
    let error = failure(try_take(&slot, id(2), 0, &Told::default()));
    assert_eq!(error.kind(), LockErrorKind::Damaged);
}

#[test]
fn whose_word_changed_has_lost() {
    let (slot, told) = (Slot::default(), Told::default());
    taken(&slot, 1, &told);
    slot.word.store(Word::held(id(2)).bits(), Ordering::SeqCst);
    assert_eq!(release(&slot, id(1), Predecessor::Clean), Err(Lost));
    assert_eq!(widen(&slot, id(1)), Err(Lost));
    assert_eq!(word(&slot), Word::held(id(2)));
}

#[test]
fn a_name_that_moved_is_given_back_as_it_was_found() {
    let (slot, told) = (slot(Word::left_so(Predecessor::Died)), Told::default());
    slot.generation.store(1, Ordering::SeqCst);
    assert!(matches!(try_take(&slot, id(1), 0, &told), Err(Stop::Moved)));
    assert_eq!(word(&slot), Word::left_so(Predecessor::Died));
    let at_last = take(&slot, id(1), 0, &told, clock::now() + LONG);
    assert!(matches!(at_last, Err(Stop::Moved)));
    assert_eq!(try_take(&slot, id(1), 1, &told).unwrap(), Some(Predecessor::Died));
}

#[test]
fn who_waits_for_a_name_that_moves_away_looks_it_up_again() {
    let (slot, told) = (slot(Word::held(id(1))), Told::default());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| take(&slot, id(2), 0, &told, clock::now() + LONG));
        until(&slot, Word::has_waiters);
        slot.generation.store(1, Ordering::SeqCst);
        wake_all(&slot);
        assert!(matches!(waiter.join().unwrap(), Err(Stop::Moved)));
    });
    assert_eq!(word(&slot).owner(), Some(id(1)), "it stays with its holder");
}

#[test]
fn a_waiter_gets_what_is_let_go() {
    let (slot, told) = (Slot::default(), Told::default());
    taken(&slot, 1, &told);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| taken(&slot, 2, &told));
        until(&slot, Word::has_waiters);
        release(&slot, id(1), Predecessor::Panicked).unwrap();
        assert_eq!(waiter.join().unwrap(), Predecessor::Panicked);
    });
    assert_eq!(word(&slot).owner(), Some(id(2)));
}

#[test]
fn a_waiter_gets_what_the_dead_held() {
    let (slot, told) = (Slot::default(), Told::default());
    taken(&slot, 1, &told);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| taken(&slot, 2, &told));
        until(&slot, Word::has_waiters);
        told.verdicts.lock().insert(id(1), Verdict::Dead);
        assert_eq!(waiter.join().unwrap(), Predecessor::Died);
    });
}

#[test]
fn a_waiter_whose_time_is_over_leaves_nothing_behind() {
    let (slot, told) = (slot(Word::held(id(1))), Told::default());
    // Long enough to become heir.
    let end = clock::now() + 5 * PATIENCE;
    assert!(matches!(take(&slot, id(2), 0, &told, end), Err(Stop::TimedOut)));
    assert!(clock::now() >= end);
    assert!(word(&slot).is_hungry(), "it stood");
    assert_eq!(slot.heir.load(Ordering::SeqCst), 0, "and left");
    release(&slot, id(1), Predecessor::Clean).unwrap();
    assert_eq!(tried(&slot, 3, &told), Some(Predecessor::Clean));
}

#[test]
fn who_lets_go_for_an_heir_does_not_get_in_before_it() {
    let told = Told::default();
    // A machine that is too busy to run the heir for 3 ms lets others in, as it should.
    let kept_out = (0..100).any(|_| {
        let slot = Slot::default();
        taken(&slot, 1, &told);
        thread::scope(|scope| {
            let heir = scope.spawn(|| taken(&slot, 2, &told));
            until(&slot, Word::is_hungry);
            release(&slot, id(1), Predecessor::Clean).unwrap();
            let again = tried(&slot, 1, &told);
            if again.is_some() {
                release(&slot, id(1), Predecessor::Clean).unwrap();
            }
            heir.join().unwrap();
            again.is_none()
        })
    });
    assert!(kept_out);
}

#[test]
fn a_reservation_whose_heir_is_silent_lapses() {
    let slot = slot(Word::held(id(1)).hungered_for());
    slot.heir.store(Heir::new(id(9), clock::now()).bits(), Ordering::SeqCst);
    release(&slot, id(1), Predecessor::Panicked).unwrap();
    assert_eq!(word(&slot).state(), Some(State::Reserved));
    assert_eq!(taken(&slot, 2, &Told::default()), Predecessor::Panicked);
    assert_eq!(slot.heir.load(Ordering::SeqCst), 0, "the silent heir has lost its place");
}

#[test]
fn a_reservation_from_another_clock_binds_nobody() {
    for reserved in [milliseconds().wrapping_add(1 << 20), milliseconds().wrapping_sub(1 << 20)] {
        let slot = slot(Word::held(id(1)).hungered_for());
        slot.heir.store(Heir::new(id(9), clock::now()).bits(), Ordering::SeqCst);
        release(&slot, id(1), Predecessor::Clean).unwrap();
        slot.reserved_ms.store(reserved, Ordering::SeqCst);
        assert_eq!(tried(&slot, 2, &Told::default()), Some(Predecessor::Clean));
    }
}

#[test]
fn a_widened_mark_stays_through_everything() {
    let (slot, told) = (Slot::default(), Told::default());
    taken(&slot, 1, &told);
    widen(&slot, id(1)).unwrap();
    release(&slot, id(1), Predecessor::Clean).unwrap();
    assert!(!retire(&slot, id(1)), "a marked name is not forgotten");
    taken(&slot, 2, &told);
    told.verdicts.lock().insert(id(2), Verdict::Dead);
    assert_eq!(tried(&slot, 3, &told), Some(Predecessor::Died));
    told.verdicts.lock().insert(id(3), Verdict::Dead);
    assert!(bury(&slot, &told).unwrap());
    assert_eq!(word(&slot), Word::left_so(Predecessor::Died).widened());
}

#[test]
fn only_what_is_free_and_quiet_is_forgotten() {
    let held = Word::held(id(2));
    for busy in [held, Word::left_so(Predecessor::Died), Word::FREE.waited_for()] {
        assert!(!retire(&slot(busy), id(1)));
    }
    let (slot, told) = (Slot::default(), Told::default());
    assert!(retire(&slot, id(1)));
    assert_eq!(tried(&slot, 2, &told), None);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| take(&slot, id(2), 0, &told, clock::now() + LONG));
        until(&slot, Word::has_waiters);
        slot.generation.store(1, Ordering::SeqCst);
        retired(&slot, id(1)).unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(Stop::Moved)));
    });
    until(&slot, |word| word.owner().is_none());
}

#[test]
fn a_forgetter_that_died_is_not_simply_followed() {
    let (slot, told) = (Slot::default(), Told::of(id(1), Verdict::Dead));
    assert!(retire(&slot, id(1)));
    let Err(Stop::Unsettled(judged)) = try_take(&slot, id(2), 0, &told) else {
        panic!("it was to be finished first");
    };
    assert!(matches!(bury(&slot, &told), Err(Stop::Unsettled(found)) if found == judged));
    settle(&slot, judged);
    assert_eq!(word(&slot), Word::FREE);
    settle(&slot, judged);
    assert_eq!(tried(&slot, 2, &told), Some(Predecessor::Clean), "it never held the lock");
}

#[test]
fn a_sweeper_frees_the_dead_and_nobody_else() {
    let told = Told::of(id(1), Verdict::Dead);
    for word in [Word::FREE, Word::held(id(2)), Word::left_so(Predecessor::Broken)] {
        assert!(!bury(&slot(word), &told).unwrap());
    }
    let slot = slot(Word::held(id(1)).waited_for());
    assert!(bury(&slot, &told).unwrap());
    assert_eq!(tried(&slot, 2, &told), Some(Predecessor::Died));
}

#[test]
fn an_unprotected_counter_loses_nothing() {
    const EACH: u64 = 20_000;
    let (slot, told) = (Slot::default(), Told::default());
    let counter = AtomicU64::new(0);
    let together = Barrier::new(4);
    thread::scope(|scope| {
        for me in 1..=4 {
            let (slot, told, counter, together) = (&slot, &told, &counter, &together);
            scope.spawn(move || {
                together.wait();
                for round in 0..EACH {
                    let left = match round % 16 {
                        0 => tried(slot, me, told),
                        1 => {
                            let soon = clock::now() + Duration::from_micros(200);
                            take(slot, id(me), 0, told, soon).ok()
                        }
                        _ => None,
                    };
                    let left = left.unwrap_or_else(|| taken(slot, me, told));
                    assert_eq!(left, Predecessor::Clean);
                    // Not one step: two inside would lose one.
                    let seen = counter.load(Ordering::Relaxed);
                    counter.store(seen + 1, Ordering::Relaxed);
                    release(slot, id(me), Predecessor::Clean).unwrap();
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 4 * EACH);
    assert_eq!(slot.heir.load(Ordering::SeqCst), 0, "nobody waits any more");
}

proptest! {
    /// Garbage is an error or costs a little time, but no crash and no exclusion.
    #[test]
    fn hostile_bytes(bits: u64, flags in 0..256_u64, owned: bool, heir: u64, reserved: u32) {
        for bits in [bits, if owned { 3 << 16 | flags } else { flags }] {
            let found = Word::from_bits(bits);
            let slot = Slot {
                heir: heir.into(),
                reserved_ms: reserved.into(),
                ..slot(found)
            };
            let told = Told::default();
            let soon = clock::now() + Duration::from_millis(2);
            match take(&slot, id(2), 0, &told, soon) {
                Ok(_) => prop_assert!(found.owner().is_none() && found.state().is_some()),
                Err(Stop::TimedOut) => prop_assert!(found.state().is_some()),
                Err(Stop::Failed(error)) => prop_assert_eq!(error.kind(), LockErrorKind::Damaged),
                Err(other) => prop_assert!(false, "{:?}", other),
            }
            let _ = bury(&slot, &told);
        }
    }
}

//! Situations of one slot, with threads in the place of processes.

use std::{
    collections::HashMap,
    process::Command,
    sync::{Arc, Barrier, atomic::AtomicU64},
    thread,
};

use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::{
    ends::EndHints,
    member::Member,
    word::{RecordWord, SlotState},
};
use super::{seeker::nap_after, *};
use crate::{
    name::Name,
    process::{DirectoryKey, Options, dir::home::Home, table::TableDirectory},
};

const LONG: Duration = Duration::from_secs(60);
/// The number of the slot.
const HERE: u32 = 7;

/// Processes by what is told of them; one that is not named is alive.
#[derive(Default)]
struct Told {
    verdicts: Mutex<HashMap<OwnerId, Verdict>>,
    asked: Mutex<Vec<OwnerId>>,
    replaced: bool,
    /// The pid that hints are about, if there are any.
    hints_at: Option<u32>,
}

impl Told {
    fn of(owner: OwnerId, verdict: Verdict) -> Told {
        Told { verdicts: Mutex::new([(owner, verdict)].into()), ..Told::default() }
    }
}

impl PresenceView for Told {
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

    fn make_room(&self) {}

    fn hint_at_end(
        &self,
        owner: OwnerId,
        slot: &Cell<MappedSlot>,
        bits: NonZeroU32,
    ) -> Option<EndHint> {
        let key = DirectoryKey { device: 0, inode: 0 };
        EndHints::request(key, owner, self.hints_at?, slot, bits)
    }
}

/// A slot beside a table's wait records.
struct SlotScene {
    _dir: TempDir,
    member: Arc<Member>,
    slot: MappedSlot,
    told: Told,
}

impl SlotScene {
    fn new() -> SlotScene {
        SlotScene::of(Word::FREE, Told::default())
    }

    fn of(word: Word, told: Told) -> SlotScene {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), &[]).unwrap();
        let member = TableDirectory::open(home, &Options::default()).unwrap();
        let member = Arc::new(member).member().unwrap();
        let slot = MappedSlot { word: word.bits().into(), ..MappedSlot::default() };
        SlotScene { _dir: dir, member, slot, told }
    }

    fn at(&self) -> SlotAt<'_> {
        SlotAt { slot: &self.slot, number: HERE, table: &self.member.table, kept: None }
    }

    fn word(&self) -> Word {
        Word::from_bits(self.slot.word.load(Ordering::SeqCst))
    }

    fn try_at(&self, me: u64, generation: u32) -> Result<Option<Predecessor>, Stop> {
        let tried = try_take(self.at(), id(me), generation, &self.told)?;
        Ok(tried.map(|admission| admission.left))
    }

    fn tried(&self, me: u64) -> Option<Predecessor> {
        self.try_at(me, 0).unwrap()
    }

    fn take_until(&self, me: u64, until: Time) -> Result<SlotWon, Stop> {
        take(self.at(), id(me), 0, &self.told, until)
    }

    fn taken(&self, me: u64) -> Predecessor {
        self.take_until(me, clock::now() + LONG).unwrap().left
    }

    fn release(&self, me: u64, how: Predecessor) {
        let token = self.slot.token.load(Ordering::SeqCst);
        release(self.at(), id(me), Exit::new(token, how)).unwrap();
    }

    /// A wait of this process that stands for the slot.
    fn stand(&self, me: u64, since: Time) -> WaitId {
        let wait = self.enlisted(me, since);
        let word = RecordWord::enlisted(id(me), wait);
        self.member.table.swap_record(wait.number(), word, word.standing());
        wait
    }

    /// Has its turn last a second, not a few milliseconds, which are soon over on a busy machine.
    fn give_a_second(&self, wait: WaitId) {
        (0..12).for_each(|_| self.member.table.note_passed(wait.number()));
    }

    /// One that is not published.
    fn enlisted(&self, me: u64, since: Time) -> WaitId {
        let wait = self.member.table.enlist(id(me)).unwrap();
        self.member.table.fill_in(wait, HERE, since, SlotWish::default());
        wait
    }

    fn record(&self, wait: WaitId) -> RecordWord {
        self.member.table.record_word(wait.number())
    }

    /// Waits for what another thread is about to write.
    fn until(&self, is: impl Fn(Word) -> bool) {
        while !is(self.word()) {
            thread::yield_now();
        }
    }

    fn kills(&self, me: u64) {
        self.told.verdicts.lock().insert(id(me), Verdict::Dead);
    }
}

fn id(number: u64) -> OwnerId {
    OwnerId::new(number).unwrap()
}

fn failure(result: Result<Option<Predecessor>, Stop>) -> LockError {
    match result {
        Err(Stop::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn reserved(wait: WaitId) -> impl Fn(Word) -> bool {
    move |word| word.reserved_for() == Some(wait)
}

#[test]
fn a_quiet_lock_is_two_words() {
    let scene = SlotScene::new();
    assert_eq!(scene.tried(1), Some(Predecessor::Clean));
    assert_eq!(scene.word(), Word::held(id(1)));
    scene.release(1, Predecessor::Clean);
    assert_eq!(scene.word(), Word::FREE);
    assert!(scene.told.asked.lock().is_empty(), "no presence is asked for");
}

#[test]
fn a_try_asks_whether_the_holder_lives_before_it_says_held() {
    let scene = SlotScene::of(Word::held(id(1)), Told::default());
    assert_eq!(scene.tried(2), None);
    assert_eq!(*scene.told.asked.lock(), [id(1)]);
    assert_eq!(scene.word(), Word::held(id(1)), "and leaves no trace");
    scene.told.verdicts.lock().insert(id(1), Verdict::Unknown);
    assert_eq!(scene.tried(2), None);
}

#[test]
fn a_death_is_told_once() {
    let scene = SlotScene::of(Word::held(id(1)), Told::of(id(1), Verdict::Dead));
    assert_eq!(scene.tried(2), Some(Predecessor::Died));
    scene.release(2, Predecessor::Clean);
    assert_eq!(scene.tried(3), Some(Predecessor::Clean));
}

#[test]
fn a_recovery_given_back_unused_is_told_again() {
    let scene = SlotScene::of(Word::held(id(1)), Told::of(id(1), Verdict::Dead));
    let left = scene.tried(2).unwrap();
    scene.release(2, left);
    assert_eq!(scene.word(), Word::left_so(Predecessor::Died));
    assert_eq!(scene.taken(3), Predecessor::Died);
}

#[test]
fn every_way_to_leave_is_told() {
    let scene = SlotScene::new();
    let ways = [Predecessor::Clean, Predecessor::Panicked, Predecessor::Died, Predecessor::Expired];
    scene.taken(1);
    for how in ways {
        scene.release(1, how);
        assert_eq!(scene.tried(1), Some(how));
    }
}

#[test]
fn no_death_is_acted_upon_while_the_table_is_another() {
    let told = Told { replaced: true, ..Told::of(id(1), Verdict::Dead) };
    let scene = SlotScene::of(Word::held(id(1)), told);
    let error = failure(scene.try_at(2, 0));
    assert_eq!((error.kind(), error.to_string()), (LockErrorKind::Damaged, "replaced".into()));
    assert!(matches!(reap(scene.at(), &scene.told), Err(Stop::Failed(_))));
    assert_eq!(scene.word(), Word::held(id(1)));
}

#[test]
fn a_holder_without_a_presence_is_damage() {
    let scene = SlotScene::of(Word::held(id(7)), Told::of(id(7), Verdict::Missing));
    let error = failure(scene.try_at(2, 0));
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("process 7"), "{error}");
}

#[test]
fn a_hold_that_was_taken_away_is_lost_without_a_change() {
    let scene = SlotScene::new();
    scene.taken(1);
    scene.slot.word.store(Word::held(id(2)).bits(), Ordering::SeqCst);
    let exit = Exit::new(1, Predecessor::Clean);
    assert_eq!(release(scene.at(), id(1), exit), Err(LostHold));
    assert_eq!(widen(scene.at(), id(1)), Err(LostHold));
    assert_eq!(scene.word(), Word::held(id(2)));
}

// ---- threads of one process --------------------------------------------------------------------

#[test]
fn a_word_with_our_own_id_is_held_by_a_sibling_thread() {
    let scene = SlotScene::of(Word::held(id(2)), Told::of(id(2), Verdict::Dead));
    assert_eq!(scene.tried(2), None);
    let soon = clock::now() + 5 * PATIENCE;
    assert!(matches!(scene.take_until(2, soon), Err(Stop::TimedOut)));
    assert!(scene.told.asked.lock().is_empty(), "its presence is not judged");
}

#[test]
fn a_sibling_is_woken_in_its_turn_like_a_foreign_waiter() {
    let scene = SlotScene::new();
    scene.taken(1);
    thread::scope(|scope| {
        let sibling = scope.spawn(|| scene.taken(1));
        scene.until(Word::is_hungry);
        let other = scope.spawn(|| scene.taken(2));
        while scene.member.table.shown_waits().len() < 2 {
            thread::yield_now();
        }
        scene.release(1, Predecessor::Panicked);
        assert_eq!(sibling.join().unwrap(), Predecessor::Panicked);
        scene.release(1, Predecessor::Clean);
        assert_eq!(other.join().unwrap(), Predecessor::Clean);
    });
}

#[test]
fn a_stale_guard_does_not_release_its_siblings_hold() {
    let scene = SlotScene::new();
    let stale = scene.take_until(1, Time::NEVER).unwrap();
    scene.kills(1);
    let robber = try_take(scene.at(), id(2), 0, &scene.told).unwrap().unwrap();
    give_back(scene.at(), id(2), robber);
    let sibling = scene.take_until(1, Time::NEVER).unwrap();
    assert!(sibling.token > robber.token && robber.token > stale.token);
    let exit = Exit::new(stale.token, Predecessor::Clean);
    assert_eq!(release(scene.at(), id(1), exit), Err(LostHold));
    assert_eq!(scene.word().owner(), Some(id(1)), "the sibling holds it");
    release(scene.at(), id(1), Exit::new(sibling.token, Predecessor::Clean)).unwrap();
}

// ---- generations -------------------------------------------------------------------------------

#[test]
fn a_name_that_moved_is_given_back_as_it_was_found() {
    let scene = SlotScene::of(Word::left_so(Predecessor::Died), Told::default());
    scene.slot.generation.store(1, Ordering::SeqCst);
    assert!(matches!(scene.try_at(1, 0), Err(Stop::Moved)));
    assert_eq!(scene.word(), Word::left_so(Predecessor::Died));
    assert!(matches!(scene.take_until(1, clock::now() + LONG), Err(Stop::Moved)));
    assert_eq!(scene.try_at(1, 1).unwrap(), Some(Predecessor::Died));
}

#[test]
fn a_stale_winner_does_not_lower_the_token_of_a_new_name() {
    let scene = SlotScene::of(Word::left_so(Predecessor::Died), Told::default());
    scene.slot.generation.store(1, Ordering::SeqCst);
    scene.slot.token.store(1000, Ordering::SeqCst);
    assert!(matches!(scene.try_at(1, 0), Err(Stop::Moved)));
    assert!(scene.slot.token.load(Ordering::SeqCst) >= 1000);
}

#[test]
fn a_waiter_for_a_name_that_moves_away_looks_it_up_again_and_leaves_no_record() {
    let scene = SlotScene::of(Word::held(id(1)), Told::default());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scene.take_until(2, clock::now() + LONG));
        scene.until(Word::is_hungry);
        scene.slot.generation.store(1, Ordering::SeqCst);
        wake_all(&scene.slot);
        assert!(matches!(waiter.join().unwrap(), Err(Stop::Moved)));
    });
    assert_eq!(scene.word().owner(), Some(id(1)), "it stays with its holder");
    assert!(scene.member.table.shown_waits().is_empty());
}

// ---- waiting -----------------------------------------------------------------------------------

#[test]
fn a_waiter_gets_what_is_released() {
    let scene = SlotScene::new();
    scene.taken(1);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scene.taken(2));
        scene.until(Word::has_waiters);
        scene.release(1, Predecessor::Panicked);
        assert_eq!(waiter.join().unwrap(), Predecessor::Panicked);
    });
    assert_eq!(scene.word().owner(), Some(id(2)));
}

#[test]
fn a_waiter_gets_what_the_dead_held() {
    let scene = SlotScene::new();
    scene.taken(1);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scene.taken(2));
        scene.until(Word::has_waiters);
        scene.kills(1);
        assert_eq!(waiter.join().unwrap(), Predecessor::Died);
    });
}

#[test]
fn a_waiter_whose_time_is_over_leaves_nothing_behind() {
    let scene = SlotScene::of(Word::held(id(1)), Told::default());
    // Long enough for a record.
    let end = clock::now() + 5 * PATIENCE;
    assert!(matches!(scene.take_until(2, end), Err(Stop::TimedOut)));
    assert!(clock::now() >= end);
    assert!(scene.word().is_hungry(), "it stood");
    assert!(scene.member.table.shown_waits().is_empty(), "and left");
    release(scene.at(), id(1), Exit::new(0, Predecessor::Clean)).unwrap();
    assert_eq!(scene.word(), Word::FREE, "two scans found no record");
}

#[test]
fn a_look_that_fails_leaves_no_record() {
    let told = Told { replaced: true, ..Told::default() };
    let scene = SlotScene::of(Word::held(id(1)), told);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scene.take_until(2, clock::now() + LONG));
        scene.until(Word::is_hungry);
        scene.kills(1);
        assert!(matches!(waiter.join().unwrap(), Err(Stop::Failed(_))));
    });
    assert!(scene.member.table.shown_waits().is_empty());
}

// ---- order -------------------------------------------------------------------------------------

#[test]
fn eight_waiters_are_served_in_the_order_in_which_they_came() {
    let scene = SlotScene::new();
    scene.taken(1);
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for me in 2..10 {
            let (scene, served) = (&scene, &served);
            scope.spawn(move || {
                scene.taken(me);
                served.lock().push(me);
                scene.release(me, Predecessor::Clean);
            });
            while scene.member.table.shown_waits().len() < me as usize - 1 {
                thread::yield_now();
            }
        }
        scene.release(1, Predecessor::Clean);
    });
    let served = served.into_inner();
    assert_eq!(served.len(), 8);
    // A machine that is too busy to run the next one in time has others pass it over.
    let passes = |number| scene.member.table.wait_so_far(number, clock::now()).1;
    let passed: u32 = (1..=8).map(passes).sum();
    assert!(passed > 0 || served.is_sorted(), "{served:?}");
    assert_eq!(scene.word(), Word::FREE);
}

#[test]
fn the_oldest_wait_is_appointed_and_woken() {
    let scene = SlotScene::of(Word::held(id(1)).hungered_for(), Told::default());
    let now = clock::now();
    let younger = scene.stand(8, now);
    let oldest = scene.stand(9, now - LONG);
    release(scene.at(), id(1), Exit::new(0, Predecessor::Panicked)).unwrap();
    assert_eq!(scene.word(), Word::FREE.appointed(oldest, Predecessor::Panicked));
    assert_ne!(younger, oldest);
}

#[test]
fn the_holder_that_released_does_not_get_in_before_the_next_wait() {
    let scene = SlotScene::of(Word::held(id(1)).hungered_for(), Told::default());
    let next = scene.stand(2, clock::now() - LONG);
    release(scene.at(), id(1), Exit::new(0, Predecessor::Clean)).unwrap();
    // Its wait has had a minute, so it has 100 ms.
    assert_eq!(scene.tried(1), None);
    assert!(reserved(next)(scene.word()));
}

#[test]
fn an_unpublished_record_is_not_believed() {
    let scene = SlotScene::of(Word::held(id(1)).hungered_for(), Told::default());
    scene.enlisted(2, clock::now());
    release(scene.at(), id(1), Exit::new(0, Predecessor::Clean)).unwrap();
    assert_eq!(scene.word(), Word::FREE);
}

#[test]
fn a_record_of_another_slot_is_left_alone() {
    let scene = SlotScene::of(Word::held(id(1)).hungered_for(), Told::default());
    let wait = scene.stand(2, clock::now());
    scene.member.table.fill_in(wait, HERE + 1, clock::now(), SlotWish::default());
    release(scene.at(), id(1), Exit::new(0, Predecessor::Clean)).unwrap();
    assert_eq!(scene.word(), Word::FREE);
    assert!(scene.record(wait).is_of(wait));
}

#[test]
fn a_silent_wait_is_passed_over_and_its_record_says_so() {
    let scene = SlotScene::of(Word::held(id(1)).hungered_for(), Told::default());
    let silent = scene.stand(9, clock::now());
    release(scene.at(), id(1), Exit::new(0, Predecessor::Panicked)).unwrap();
    assert!(reserved(silent)(scene.word()));
    assert_eq!(scene.taken(2), Predecessor::Panicked);
    assert!(scene.record(silent).is_passed());
    scene.release(2, Predecessor::Clean);
    assert_eq!(scene.word(), Word::FREE, "no waiter is left");
}

#[test]
fn a_try_passes_over_a_wait_that_had_its_time() {
    let scene = SlotScene::new();
    let silent = scene.stand(9, clock::now());
    scene.give_a_second(silent);
    let word = Word::FREE.appointed(silent, Predecessor::Clean);
    for offset in [1 << 20, -(1 << 20), 0] {
        scene.slot.word.store(word.bits(), Ordering::SeqCst);
        let when = milliseconds(clock::now()).wrapping_add(offset as u32);
        scene.slot.since.store(when, Ordering::SeqCst);
        match offset {
            0 => assert_eq!(scene.tried(2), None),
            // From long ago, or from another clock.
            _ => assert_eq!(scene.tried(2), Some(Predecessor::Clean)),
        }
        let found = scene.record(silent);
        scene.member.table.swap_record(silent.number(), found, found.standing());
    }
}

#[test]
fn a_reservation_for_a_wait_that_is_gone_binds_no_taker() {
    let gone = |scene: &SlotScene, wait| scene.member.table.erase(wait);
    let used_again = |scene: &SlotScene, wait| {
        gone(scene, wait);
        let next = scene.stand(9, clock::now());
        assert_eq!(next.number(), wait.number());
        scene.member.table.fill_in(next, HERE + 1, clock::now(), SlotWish::default());
    };
    let dead = |scene: &SlotScene, _| scene.kills(9);
    let missing = |scene: &SlotScene, _: WaitId| {
        scene.told.verdicts.lock().insert(id(9), Verdict::Missing);
    };
    type Way<'a> = &'a dyn Fn(&SlotScene, WaitId);
    let ways: [Way<'_>; 4] = [&gone, &used_again, &dead, &missing];
    for way in ways {
        let scene = SlotScene::new();
        let wait = scene.stand(9, clock::now());
        let word = Word::FREE.appointed(wait, Predecessor::Died);
        scene.slot.word.store(word.bits(), Ordering::SeqCst);
        scene.slot.since.store(milliseconds(clock::now()), Ordering::SeqCst);
        way(&scene, wait);
        assert_eq!(scene.tried(2), Some(Predecessor::Died));
    }
}

#[test]
fn a_wait_that_was_passed_over_has_twice_the_time() {
    let scene = SlotScene::new();
    let now = clock::now();
    let wait = scene.stand(9, now);
    scene.slot.since.store(milliseconds(now), Ordering::SeqCst);
    let left = || time_left(scene.at(), wait, now).as_millis();
    let mut times = vec![left()];
    for _ in 0..12 {
        scene.member.table.note_passed(wait.number());
        times.push(left());
    }
    assert_eq!(times[..4], [4, 7, 13, 25]);
    assert_eq!(times[12], 1001, "at most a second");
}

#[test]
fn the_prover_of_a_death_appoints_the_oldest_wait() {
    for (older, expected) in [(true, None), (false, Some(Predecessor::Died))] {
        let scene = SlotScene::of(Word::held(id(1)), Told::of(id(1), Verdict::Dead));
        let wait = older.then(|| {
            let wait = scene.stand(9, clock::now());
            scene.give_a_second(wait);
            wait
        });
        assert_eq!(scene.tried(2), expected);
        if let Some(wait) = wait {
            assert_eq!(scene.word(), Word::FREE.appointed(wait, Predecessor::Died));
        }
    }
}

/// That wake changes no word. Where it was taken for any other, the end of a holder was found by the next
/// timer, up to a tenth of a second later.
#[test]
fn a_waiter_that_is_woken_at_the_end_of_the_holder_looks_at_once() {
    let mut holder = Command::new("sleep").arg("1000").spawn().unwrap();
    let scene = SlotScene::of(Word::FREE, Told { hints_at: Some(holder.id()), ..Told::default() });
    let found = scene.member.find(&Name::new("a").unwrap()).unwrap();
    let cell = scene.member.table.slot_cell(found.number).unwrap();
    let at = SlotAt { slot: &cell, number: found.number, kept: Some(&cell), ..scene.at() };
    cell.word.store(Word::held(id(1)).bits(), Ordering::SeqCst);
    let mut seeker = Seeker::new(id(2), found.generation, true);
    seeker.since = Some(clock::now() - FIRST_NAP);
    let looks_before_it_sleeps = |seeker: &mut Seeker| {
        scene.told.asked.lock().clear();
        assert!(matches!(seeker.go_on(at, &scene.told), Ok(SeekerTurn::Sleep { .. })));
        scene.told.asked.lock().len()
    };
    assert_eq!(looks_before_it_sleeps(&mut seeker), 2, "at first, and once it is to be woken");
    seeker.slept(Slept::Woken);
    assert_eq!(looks_before_it_sleeps(&mut seeker), 0, "the holder runs");
    holder.kill().unwrap();
    holder.wait().unwrap();
    while !seeker.is_hinted() {
        thread::yield_now();
    }
    seeker.slept(Slept::Woken);
    assert_eq!(
        looks_before_it_sleeps(&mut seeker),
        1,
        "its proof of life may last a little longer"
    );
    scene.kills(1);
    seeker.slept(Slept::Woken);
    let won = seeker.go_on(at, &scene.told);
    assert!(matches!(won, Ok(SeekerTurn::Won(SlotWon { left: Predecessor::Died, .. }))), "{won:?}");
}

/// Of a queue of threads each would else let newcomers of other processes pass for a millisecond, once it
/// stands at the slot.
#[test]
fn a_waiter_that_has_waited_at_its_turnstile_has_a_place_at_its_first_look() {
    let scene = SlotScene::of(Word::held(id(1)), Told::default());
    let before = clock::now();
    let first_look = |owner, arrived| {
        let wish = SlotWish { arrived, ..SlotWish::default() };
        let mut seeker = Seeker::new(id(owner), 0, true).with(wish);
        match seeker.go_on(scene.at(), &scene.told).unwrap() {
            SeekerTurn::Sleep { record, .. } => (seeker, record),
            turn => panic!("{turn:?}"),
        }
    };
    let (_newcomer, record) = first_look(2, Some(clock::now() + LONG));
    assert_eq!(record, None, "it may be served at once");
    let (_waiter, record) = first_look(3, Some(before - PATIENCE));
    assert!(record.is_some() && scene.word().is_hungry());
    // Its place among the processes counts from this look, and not from the turnstile.
    let since = scene.member.table.wait_of(HERE, id(3)).unwrap();
    assert!(since + Duration::from_micros(2) > before, "a record is exact to a microsecond");
}

/// A wait of a minute costs ten looks a second, one of a tenth of a second three hundred.
#[test]
fn looks_become_ever_rarer() {
    let ms = Duration::from_millis;
    for (waited, nap) in
        [(0, 3), (1, 3), (96, 3), (320, 10), (1600, 50), (3200, 100), (60_000, 100)]
    {
        assert_eq!(nap_after(ms(waited)), ms(nap), "after {waited} ms");
    }
    let naps: Vec<_> = (0..10_000).map(|waited| nap_after(ms(waited))).collect();
    assert!(naps.is_sorted());
}

#[test]
fn a_waiter_that_gives_up_hands_its_reservation_on() {
    let scene = SlotScene::of(Word::held(id(1)), Told::default());
    let mut seeker = Seeker::new(id(2), 0, true);
    let record = loop {
        match seeker.go_on(scene.at(), &scene.told).unwrap() {
            SeekerTurn::Sleep { record: Some(record), .. } => break record,
            SeekerTurn::Sleep { .. } => seeker.slept(Slept::ByItself),
            turn => panic!("{turn:?}"),
        }
    };
    let next = scene.stand(3, clock::now());
    release(scene.at(), id(1), Exit::new(0, Predecessor::Panicked)).unwrap();
    assert!(reserved(record)(scene.word()), "it is the oldest");
    seeker.abandon(scene.at());
    assert_eq!(scene.word(), Word::FREE.appointed(next, Predecessor::Panicked));
}

#[test]
fn takers_of_a_word_with_waiters_keep_it_hungry() {
    let scene = SlotScene::of(Word::FREE.waited_for(), Told::default());
    scene.taken(1);
    assert!(scene.word().is_hungry());
    scene.kills(1);
    assert_eq!(scene.tried(2), Some(Predecessor::Died));
    assert!(scene.word().is_hungry());
    scene.release(2, Predecessor::Clean);
    assert_eq!(scene.word(), Word::FREE, "and two scans clear it");
}

#[test]
fn more_waits_than_the_first_part_of_records_has_room_for() {
    let scene = SlotScene::new();
    let first: Vec<WaitId> = (0..1023).map(|_| scene.enlisted(9, Time::ZERO)).collect();
    assert!(scene.member.table.enlist(id(2)).is_none());
    PresenceView::make_room(&*scene.member);
    let beyond = scene.enlisted(2, Time::ZERO);
    assert_eq!(u32::from(beyond.number()), 1024);
    // A dead one's is taken where there is no free one.
    assert!(scene.member.table.enlist_after_dead(id(3), &mut |owner| owner == id(9)).is_some());
    scene.member.table.erase(first[5]);
    assert_eq!(scene.member.table.enlist(id(2)).map(WaitId::number), Some(first[5].number()));
}

// ---- at_least ----------------------------------------------------------------------------------

#[test]
fn a_hold_with_at_least_stays_taken_after_its_holder_left_or_died() {
    for dies in [false, true] {
        let scene = SlotScene::new();
        let held = scene.take_until(1, Time::NEVER).unwrap();
        let end = clock::now() + Duration::from_millis(300);
        keep_until(&scene.slot, Some(end));
        let left = if dies {
            scene.kills(1);
            Predecessor::Died
        } else {
            let how = Predecessor::Panicked;
            let exit = Exit { may_stay: true, ..Exit::new(held.token, how) };
            release(scene.at(), id(1), exit).unwrap();
            how
        };
        assert_eq!(scene.tried(2), None);
        assert!(matches!(scene.word().state(), Some(SlotState::Staying(_))));
        assert_eq!(scene.taken(2), left);
        // It is kept in milliseconds.
        assert!(clock::now() + Duration::from_millis(1) >= end);
    }
}

#[test]
fn waits_stand_in_order_behind_a_hold_that_stays() {
    let scene = SlotScene::new();
    let held = scene.take_until(1, Time::NEVER).unwrap();
    keep_until(&scene.slot, Some(clock::now() + Duration::from_millis(50)));
    let exit = Exit { may_stay: true, ..Exit::new(held.token, Predecessor::Clean) };
    release(scene.at(), id(1), exit).unwrap();
    let first = scene.stand(9, clock::now() - LONG);
    assert_eq!(scene.tried(2), None, "it stays");
    while matches!(scene.word().state(), Some(SlotState::Staying(_))) {
        assert_eq!(scene.tried(2), None, "then it is the oldest wait's");
    }
    assert!(reserved(first)(scene.word()));
}

#[cfg(feature = "cli")]
#[test]
fn the_stay_of_exactly_one_token_is_ended_and_does_not_come_back() {
    for dies in [false, true] {
        let scene = SlotScene::new();
        let held = scene.take_until(1, Time::NEVER).unwrap();
        keep_until(&scene.slot, Some(clock::now() + Duration::from_secs(3600)));
        if dies {
            scene.kills(1);
        } else {
            let exit = Exit { may_stay: true, ..Exit::new(held.token, Predecessor::Clean) };
            release(scene.at(), id(1), exit).unwrap();
        }
        let end = |generation, token| {
            end_stay(scene.at(), id(2), generation, &scene.told, token).unwrap()
        };
        assert!(!end(0, held.token + 1));
        assert!(!end(1, held.token), "another name is in the slot");
        assert_eq!(scene.tried(3), None, "it stays");
        let first = scene.stand(9, clock::now());
        assert!(end(0, held.token));
        assert!(reserved(first)(scene.word()), "the oldest wait is next");
        assert!(!end(0, held.token));
        assert_eq!(stay_ahead(&scene.slot), None, "no later death brings it back");
    }
}

#[test]
fn an_end_that_no_lock_wrote_keeps_none_out() {
    let told = || Told::of(id(1), Verdict::Dead);
    let far = (clock::now() + AT_LEAST_MAX).as_nanos() / 1_000_000 + 60_000;
    for end in [0, 1, far, u64::MAX] {
        let scene = SlotScene::of(Word::held(id(1)), told());
        scene.slot.end.store(end, Ordering::SeqCst);
        assert_eq!(scene.tried(2), Some(Predecessor::Died), "{end}");
    }
}

// ---- marks, forgetting, sweeping ---------------------------------------------------------------

#[test]
fn a_widened_mark_stays_through_everything() {
    let scene = SlotScene::new();
    scene.taken(1);
    widen(scene.at(), id(1)).unwrap();
    scene.release(1, Predecessor::Clean);
    assert!(!retire(&scene.slot, id(1)), "a marked name is not forgotten");
    scene.taken(2);
    scene.kills(2);
    assert_eq!(scene.tried(3), Some(Predecessor::Died));
    scene.kills(3);
    assert!(reap(scene.at(), &scene.told).unwrap());
    assert_eq!(scene.word(), Word::left_so(Predecessor::Died).widened().waited_for());
    let wait = scene.stand(9, clock::now());
    scene.taken(4);
    scene.release(4, Predecessor::Clean);
    assert_eq!(scene.word(), Word::FREE.widened().appointed(wait, Predecessor::Clean));
}

#[test]
fn only_what_is_free_and_quiet_is_forgotten() {
    let held = Word::held(id(2));
    for busy in [held, Word::left_so(Predecessor::Died), Word::FREE.waited_for()] {
        let slot = MappedSlot { word: busy.bits().into(), ..MappedSlot::default() };
        assert!(!retire(&slot, id(1)));
    }
    let scene = SlotScene::new();
    assert!(retire(&scene.slot, id(1)));
    assert_eq!(scene.tried(2), None);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scene.take_until(2, clock::now() + LONG));
        scene.until(Word::has_waiters);
        scene.slot.generation.store(1, Ordering::SeqCst);
        retired(scene.at(), id(1)).unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(Stop::Moved)));
    });
    scene.until(|word| word.owner().is_none());
}

#[test]
fn a_forgetter_that_died_is_not_simply_followed() {
    let scene = SlotScene::of(Word::FREE, Told::of(id(1), Verdict::Dead));
    assert!(retire(&scene.slot, id(1)));
    let Err(Stop::Unsettled(judged)) = scene.try_at(2, 0) else {
        panic!("it was to be finished first");
    };
    let reaped = reap(scene.at(), &scene.told);
    assert!(matches!(reaped, Err(Stop::Unsettled(found)) if found == judged));
    settle(scene.at(), judged);
    assert_eq!(scene.word(), Word::FREE);
    settle(scene.at(), judged);
    assert_eq!(scene.tried(2), Some(Predecessor::Clean), "it never held the lock");
}

#[test]
fn a_sweeper_frees_the_dead_and_no_other() {
    for word in [Word::FREE, Word::held(id(2)), Word::left_so(Predecessor::Expired)] {
        let scene = SlotScene::of(word, Told::of(id(1), Verdict::Dead));
        assert!(!reap(scene.at(), &scene.told).unwrap());
    }
    let scene = SlotScene::of(Word::held(id(1)).waited_for(), Told::of(id(1), Verdict::Dead));
    assert!(reap(scene.at(), &scene.told).unwrap());
    assert_eq!(scene.tried(2), Some(Predecessor::Died));
    scene.kills(2);
    let wait = scene.stand(9, clock::now());
    assert!(reap(scene.at(), &scene.told).unwrap());
    assert_eq!(scene.word(), Word::FREE.appointed(wait, Predecessor::Died));
}

#[test]
fn an_unprotected_counter_loses_nothing() {
    const EACH: u64 = 20_000;
    let scene = SlotScene::new();
    let counter = AtomicU64::new(0);
    let together = Barrier::new(6);
    thread::scope(|scope| {
        // The last two are threads of the first two processes, which only try.
        for thread in 1..=6 {
            let (scene, counter, together) = (&scene, &counter, &together);
            scope.spawn(move || {
                let (me, only_tries) =
                    if thread > 4 { (thread - 4, true) } else { (thread, false) };
                together.wait();
                for round in 0..EACH {
                    let soon = || clock::now() + Duration::from_micros(200);
                    let taken = loop {
                        let tried = || try_take(scene.at(), id(me), 0, &scene.told).unwrap();
                        match round % 16 {
                            _ if only_tries => match tried() {
                                Some(taken) => break taken,
                                None => thread::yield_now(),
                            },
                            0 => match tried() {
                                Some(taken) => break taken,
                                None => break scene.take_until(me, Time::NEVER).unwrap(),
                            },
                            1 => match scene.take_until(me, soon()) {
                                Ok(taken) => break taken,
                                Err(_) => continue,
                            },
                            _ => break scene.take_until(me, Time::NEVER).unwrap(),
                        }
                    };
                    assert_eq!(taken.left, Predecessor::Clean);
                    // Not one step: two inside would lose one.
                    let seen = counter.load(Ordering::Relaxed);
                    counter.store(seen + 1, Ordering::Relaxed);
                    let exit = Exit::new(taken.token, Predecessor::Clean);
                    release(scene.at(), id(me), exit).unwrap();
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 6 * EACH);
    assert_eq!(scene.slot.token.load(Ordering::SeqCst), 6 * EACH, "each hold has its own token");
    assert!(scene.member.table.shown_waits().is_empty(), "no wait is left");
    scene.taken(1);
    scene.release(1, Predecessor::Clean);
    assert_eq!(scene.word(), Word::FREE, "and the word is quiet again");
}

proptest! {
    /// Garbage is an error or costs a little time, but no crash and no exclusion.
    #[test]
    fn hostile_bytes(
        bits: u64,
        flags in 0..1024_u64,
        owned: bool,
        end: u64,
        since: u32,
        record: u64,
        began: u64,
        used: u32,
    ) {
        let scene = SlotScene::new();
        let header = scene.member.table.header();
        header.records_used.store(used, Ordering::SeqCst);
        for number in [1, 3] {
            scene.member.table.fill_in(
                WaitId::new(number, 0).unwrap(),
                HERE,
                Time::from_nanos(began),
                SlotWish::default(),
            );
            let free = RecordWord::from_bits(0);
            scene.member.table.swap_record(number, free, RecordWord::from_bits(record));
        }
        for bits in [bits, if owned { 3 << 16 | flags } else { flags }] {
            let found = Word::from_bits(bits);
            scene.slot.word.store(bits, Ordering::SeqCst);
            scene.slot.end.store(end, Ordering::SeqCst);
            scene.slot.since.store(since, Ordering::SeqCst);
            let soon = clock::now() + Duration::from_millis(2);
            match scene.take_until(2, soon) {
                Ok(_) => prop_assert!(found.owner().is_none() && found.state().is_some()),
                Err(Stop::TimedOut) => prop_assert!(found.state().is_some()),
                Err(Stop::Failed(error)) => prop_assert_eq!(error.kind(), LockErrorKind::Damaged),
                Err(other) => prop_assert!(false, "{:?}", other),
            }
            let _ = reap(scene.at(), &scene.told);
        }
    }
}

//! Names that were shared: forgotten like others, with a chain of share records that stays in the slot.

use super::*;

const ALONE: Room = Room::Alone;

/// Comes in past the word.
fn read(slot: &TableSlot) -> bool {
    slot.prepare_to_read().unwrap();
    slot.found(fork::generation()).unwrap().read(false).is_some()
}

/// Wins the word, and looks once for readers: whether it may write.
fn write(slot: &TableSlot) -> bool {
    take(slot);
    let drained = slot.drain(&mut TableDrainer::default(), ALONE, false).unwrap();
    if drained != Drain::Drained {
        slot.release(Predecessor::Clean);
    }
    drained == Drain::Drained
}

fn number(slot: &TableSlot) -> u32 {
    slot.places.so_far().unwrap().last().number
}

fn shares_used(all: &TableDirectory) -> u32 {
    header(&member(all)).shares_used.load(SeqCst)
}

#[test]
fn a_name_that_is_read_is_not_forgotten_and_one_that_was_is() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let slot = one.slot(&name("a")).unwrap();
    assert!(read(&slot));
    assert!(!forget(&two, "a"), "a reader is inside");
    slot.unshare(Share::Reader);
    assert!(forget(&two, "a"));
    assert_eq!(looked_up(&member(&one), &name("a")), None);
    assert!(statuses(dir.path()).is_empty());
    // Its reader finds it again, and a writer finds the reader.
    assert!(!read(&slot), "it stands elsewhere, or will");
    let again = one.slot(&name("a")).unwrap();
    assert!(read(&again));
    assert!(!write(&super::slot(dir.path(), "a")));
    again.unshare(Share::Reader);
    assert!(write(&super::slot(dir.path(), "a")));
}

/// The sweep takes names that were shared, in the order in which it comes to them.
#[test]
fn names_that_were_shared_are_swept_and_leave_their_records_to_those_that_come() {
    const NAMES: usize = 600;
    let dir = directory();
    let all = open(dir.path());
    header(&member(&all)).names_max.store(20, Relaxed);
    for round in 0..NAMES {
        let slot = all.slot(&name(&format!("{round}"))).unwrap();
        assert!(read(&slot));
        slot.unshare(Share::Reader);
    }
    let kept = statuses(dir.path()).len();
    assert!(kept < 200, "{kept} of {NAMES} are kept");
    assert!(shares_used(&all) < 300, "{} records for them", shares_used(&all));
}

#[test]
fn a_slot_that_was_shared_is_quiet_for_a_name_that_is_not() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let stale = one.slot(&name("a")).unwrap();
    assert!(read(&stale));
    stale.unshare(Share::Reader);
    assert!(forget(&two, "a"));
    let mutex = two.slot(&name("b")).unwrap();
    assert_eq!(number(&mutex), number(&stale), "the same slot");
    let place = mutex.places.so_far().unwrap().last();
    assert_eq!(place.slot.generation.with_head(), u64::from(place.generation));
    take(&mutex); // looks at the reserve
    mutex.release(Predecessor::Clean);
    assert!(mutex.found(fork::generation()).unwrap().take().is_some());
    // The reader of the forgotten name is not let in, nor counted.
    assert!(stale.found(fork::generation()).unwrap().read(false).is_none());
    mutex.release(Predecessor::Clean);
    assert!(stale.found(fork::generation()).unwrap().read(false).is_none());
    assert!(write(&mutex));
    mutex.release(Predecessor::Clean);
    // Shared again, it has the records that there were, and each process its own.
    let used = shares_used(&one);
    let here = one.slot(&name("b")).unwrap();
    assert!(read(&here));
    assert_eq!(shares_used(&one), used);
    assert!(!write(&mutex), "a reader is inside");
    assert!(read(&mutex));
    here.unshare(Share::Reader);
    assert!(!write(&here), "another is inside");
    mutex.unshare(Share::Reader);
    assert!(write(&here));
}

/// What is counted for the slot's next name is none of the last one's.
#[test]
fn a_stale_value_is_dropped_without_taking_the_next_names_readers() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let stale = one.slot(&name("a")).unwrap();
    assert!(read(&stale));
    stale.unshare(Share::Reader);
    assert!(forget(&two, "a"));
    let next = one.slot(&name("b")).unwrap();
    assert_eq!(number(&next), number(&stale));
    assert!(read(&next));
    drop(stale);
    assert!(!write(&slot(dir.path(), "b")), "its reader is inside");
    drop(next); // a guard of it was forgotten
    assert!(write(&slot(dir.path(), "b")));
}

/// A reader that is stopped between its count and its look keeps the name.
#[test]
fn a_reader_on_its_way_in_keeps_its_name_and_one_that_died_there_does_not() {
    for end in ["stop-at", "end-at"] {
        let dir = directory();
        let all = open(dir.path());
        drop(all.slot(&name("a")).unwrap());
        let mut helper = Helper::start(dir.path());
        assert_eq!(helper.ask("member"), "done");
        assert_eq!(helper.ask("share a"), "done");
        assert_eq!(helper.ask(&format!("{end} ReadLook")), "done");
        helper.say("read a");
        if end == "stop-at" {
            helper.wait_until_stopped();
            assert!(!forget(&all, "a"));
            helper.signal(Signal::CONT);
            assert_eq!(helper.hear(), "done");
            assert!(!forget(&all, "a"), "it is inside");
            assert_eq!(helper.ask("unread a"), "done");
        } else {
            assert!(!helper.child.wait().unwrap().success());
            assert!(!forget(&all, "a"), "what it counts was not struck yet");
            header(&member(&all)).joined.store(0, Relaxed);
            drop(slot(dir.path(), "b")); // sweeps what the dead left
        }
        assert!(forget(&all, "a"), "{end}");
        assert!(write(&slot(dir.path(), "a")));
    }
}

/// The limit is that of every process that uses the semaphore, and goes with the last one.
#[test]
fn a_semaphore_is_forgotten_once_no_process_uses_it() {
    let dir = directory();
    let (one, all) = (open(dir.path()), open(dir.path()));
    let number = {
        let seats = one.slot_for(&name("seats"), Usage::Permits(3)).unwrap();
        seats.prepare_to_read().unwrap();
        take(&seats);
        seats.count_permits(2).unwrap();
        seats.release(Predecessor::Clean);
        seats.unshare(Share::Permits(2));
        number(&seats)
    };
    let member = member(&all);
    let forget = || member.change(|changing| changing.forget(number, &*member)).unwrap();
    assert!(!forget(), "a process that lives counts by its limit");
    assert!(all.slot_for(&name("seats"), Usage::Permits(4)).is_err());
    drop(one);
    assert!(forget());
    // The next name of the slot has the chain, whichever it is.
    let next = all.slot_for(&name("other"), Usage::Permits(7)).unwrap();
    assert_eq!(self::number(&next), number);
    next.prepare_to_read().unwrap();
    assert_eq!(next.permits_taken().unwrap(), 0);
    assert_eq!(shares_used(&all), 1);
    let seats = all.slot_for(&name("seats"), Usage::Permits(4)).unwrap();
    seats.prepare_to_read().unwrap();
    assert!(all.slot_for(&name("other"), Usage::Permits(3)).is_err());
}

/// What leads a helper to each step of forgetting a shared name, and of coming to its slot.
fn ways() -> Vec<(Step, &'static str)> {
    use Step::*;
    let forgets = [
        RetireBegin,
        RetireBegun,
        ForgetWon,
        ForgetCounted,
        ForgetIntended,
        ForgetFloor,
        ForgetUnnamed,
        ForgetSetAside,
        ForgetGeneration,
        ForgetUnlinked,
        ForgetDone,
    ];
    let enters = [EnterIntended, EnterReserved, EnterFilled, EnterLinked];
    let forgets = forgets.map(|step| (step, "forget old"));
    let enters_lock = enters.map(|step| (step, "enter 1 new"));
    let enters_semaphore = enters.map(|step| (step, "semaphore new"));
    let takes_back = [(ShareTakenBack, "share new")];
    [&forgets[..], &enters_lock, &enters_semaphore, &takes_back].concat()
}

#[test]
fn a_death_at_any_step_of_forgetting_a_shared_name_loses_no_record() {
    for (step, way) in ways() {
        let dir = directory();
        let all = open(dir.path());
        let old = all.slot(&name("old")).unwrap();
        let forgets = way.starts_with("forget");
        assert!(read(&old));
        let record = old.places.so_far().unwrap().last().own().unwrap().number();
        old.unshare(Share::Reader);
        let at = number(&old);
        assert!(forgets || forget(&all, "old"));
        let mut helper = Helper::start(dir.path());
        assert_eq!(helper.ask("member"), "done");
        assert_eq!(helper.ask(&format!("end-at {step:?}")), "done");
        helper.say(way);
        assert!(!helper.child.wait().unwrap().success(), "{step:?} was not reached by {way}");
        // The next process finishes it or undoes it, and strikes what the dead one had.
        header(&member(&all)).joined.store(0, Relaxed);
        drop(slot(dir.path(), "elsewhere, and longer than any name that is free"));
        // Whatever name has the slot now, or none: the chain is whole, and of that slot.
        let text = if forgets { "old" } else { "new" };
        let found = all.slot(&name(text)).or_else(|_| all.slot_for(&name(text), Usage::Permits(5)));
        let found = found.unwrap();
        assert_eq!(number(&found), at, "{step:?} by {way}");
        found.prepare_to_read().unwrap();
        let own = found.places.so_far().unwrap().last().own().unwrap().number();
        assert_eq!(own, record, "{step:?} by {way}");
        if found.usage == Usage::Lock {
            assert!(read(&found));
            assert!(!write(&slot(dir.path(), text)), "{step:?} by {way}");
            found.unshare(Share::Reader);
            assert!(write(&slot(dir.path(), text)), "{step:?} by {way}");
        }
        check_slots(&member(&all));
    }
}

/// Several processes read and write a few names, which are forgotten at every moment at which none is
/// inside: no reader sees what a writer has half done.
#[test]
fn shared_names_forgotten_under_fire_let_no_writer_in_beside_a_reader() {
    const BUSY: usize = 4;
    const ROUNDS: u64 = 3_000;
    let dir = directory();
    let pairs: [[AtomicU64; 2]; BUSY] = Default::default();
    let (over, forgotten) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (dir, pairs, over, forgotten) = (&dir, &pairs, &over, &forgotten);
        let users: Vec<_> = (0..3_u64)
            .map(|user| {
                scope.spawn(move || {
                    let all = open(dir.path());
                    let mut random = user;
                    let slots: Vec<_> = (0..BUSY)
                        .map(|at| all.slot(&name(&format!("busy{at}"))).unwrap())
                        .collect();
                    for _ in 0..ROUNDS {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let at = (random >> 33) as usize % BUSY;
                        let pair = || pairs[at].each_ref().map(|one| one.load(Relaxed));
                        if (random >> 40).is_multiple_of(4) {
                            write_pair(&slots[at], &pairs[at]);
                        } else {
                            come_in(&slots[at]);
                            let [one, other] = pair();
                            assert_eq!(one, other, "a reader beside a writer");
                            slots[at].unshare(Share::Reader);
                        }
                    }
                })
            })
            .collect();
        let forgetter = scope.spawn(move || {
            let all = open(dir.path());
            let member = member(&all);
            while !over.load(Relaxed) {
                for number in 0..header(&member).slots_used.load(Relaxed) {
                    let is_live = Marks::of(member.table.slot(number).unwrap()).is_live();
                    let forget = || member.change(|changing| changing.forget(number, &*member));
                    forgotten.fetch_add(u64::from(is_live && forget().unwrap()), Relaxed);
                }
            }
        });
        let ended: Vec<_> = users.into_iter().map(|user| user.join()).collect();
        over.store(true, Relaxed);
        forgetter.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert!(forgotten.load(Relaxed) > 20, "{} were forgotten", forgotten.load(Relaxed));
    for pair in &pairs {
        assert_eq!(pair[0].load(Relaxed), pair[1].load(Relaxed));
    }
}

/// Comes in as a reader, quietly or by the word.
fn come_in(slot: &TableSlot) {
    if !read(slot) {
        let taken = slot.take_unless(Token::ZERO, Time::NEVER, &|| false, true).unwrap();
        slot.read_under_the_word(&taken, false).unwrap();
        slot.release(taken.predecessor);
    }
}

/// Writes one half, and then the other.
fn write_pair(slot: &TableSlot, pair: &[AtomicU64; 2]) {
    take(slot);
    let mut drainer = TableDrainer::default();
    while let Drain::Sleep { bell, longest } = slot.drain(&mut drainer, ALONE, true).unwrap() {
        slot.sleep_on_bell(&mut drainer, bell, longest).unwrap();
    }
    let next = pair[0].load(Relaxed) + 1;
    pair[0].store(next, Relaxed);
    thread::yield_now();
    pair[1].store(next, Relaxed);
    slot.release(Predecessor::Clean);
}

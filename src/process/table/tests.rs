//! Situations of the table engine: its storage, its presences, its tokens. What it has in common
//! with the file-lock engine is in `process::tests`, and the word's own situations in `lock`.
//!
//! Each [`TableDirectory`] value has a presence of its own, so several of them in this process stand
//! for several processes.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64},
    thread,
    time::Duration,
};

use proptest::prelude::*;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::fork;

use super::{
    super::{
        EngineKind, NameStatus,
        sys::futex,
        tests::{Helper, LONG, Mount, directory_of, name, token},
    },
    layout::Header,
    step::{Step, dwell_at, end_at},
    *,
};

fn directory() -> TempDir {
    directory_of(EngineKind::Table)
}

fn open(path: &Path) -> Arc<TableDirectory> {
    try_open(path).unwrap()
}

fn try_open(path: &Path) -> Result<Arc<TableDirectory>, LockError> {
    let home = Home::open(path, &[])?;
    TableDirectory::open(home, &Options::default()).map(Arc::new)
}

fn open_error(path: &Path) -> LockError {
    try_open(path).err().expect("it opened")
}

/// A slot of the name, as another process has it.
fn slot(path: &Path, text: &str) -> TableSlot {
    open(path).slot(&name(text)).unwrap()
}

fn try_take(slot: &TableSlot) -> Option<Taken> {
    slot.try_take(Token::ZERO).unwrap()
}

fn take(slot: &TableSlot) -> Taken {
    slot.take(Token::ZERO, clock::now() + LONG).unwrap()
}

fn statuses(path: &Path) -> Vec<NameStatus> {
    survey::inspect(&Home::open(path, &[]).unwrap()).unwrap().into_iter().flatten().collect()
}

fn status(path: &Path, text: &str) -> Option<NameStatus> {
    statuses(path).into_iter().find(|status| *status.name == *text)
}

fn member(all: &TableDirectory) -> Arc<Member> {
    all.member().unwrap()
}

fn header(member: &Member) -> &Header {
    member.table.header()
}

fn presences(path: &Path) -> HashSet<String> {
    let entries = fs::read_dir(path.join("presence")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn presence_of(path: &Path, all: &TableDirectory) -> PathBuf {
    path.join("presence").join(format!("{:010x}", member(all).id.get()))
}

/// What one finds without a lock.
fn looked_up(member: &Member, name: &Name) -> Option<Found> {
    member.table.find(name, member.table.hash(name)).unwrap()
}

/// Forgets a name as a sweep does.
fn forget(all: &TableDirectory, text: &str) -> bool {
    let member = member(all);
    let found = member.find(&name(text)).unwrap();
    member.change(|changing| changing.forget(found.number, &*member)).unwrap()
}

// ---- names -------------------------------------------------------------------------------------

#[test]
fn thousands_of_names_are_found_again_by_every_process() {
    const NAMES: u32 = 12_000;
    let dir = directory();
    let (one, two) = (member(&open(dir.path())), member(&open(dir.path())));
    let text = |number| name(&format!("orders/{number}/{}", "x".repeat(number as usize % 200)));
    let entered: Vec<_> = (0..NAMES).map(|number| one.find(&text(number)).unwrap()).collect();
    let slots: HashSet<_> = entered.iter().map(|found| found.number).collect();
    assert_eq!(slots.len(), NAMES as usize);
    for (number, found) in (0..).zip(entered) {
        assert_eq!(two.find(&text(number)).unwrap(), found);
        assert_eq!(looked_up(&two, &text(number)), Some(found));
    }
    assert!(header(&two).doublings.load(Relaxed) >= 2, "the index grew");
    assert_eq!(header(&two).names.load(Relaxed), NAMES);
    assert_eq!(looked_up(&two, &name("orders")), None);
    assert_eq!(statuses(dir.path()).len(), NAMES as usize);
}

#[test]
fn names_entered_by_several_at_once_have_one_slot_each() {
    const NAMES: u32 = 600;
    let dir = directory();
    let found: Vec<Vec<Found>> = thread::scope(|scope| {
        let enter = || {
            let member = member(&open(dir.path()));
            (0..NAMES).map(|number| member.find(&name(&format!("n{number}"))).unwrap()).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|others| *others == found[0]));
    assert_eq!(statuses(dir.path()).len(), NAMES as usize);
}

#[test]
fn a_hundred_thousand_names_are_found_by_a_process_that_comes_later() {
    many_names(100_000);
}

#[test]
#[ignore = "takes a minute: cargo test --release -- --ignored a_million_names"]
fn a_million_names_are_found_by_a_process_that_comes_later() {
    many_names(1_000_000);
}

/// No file and no descriptor for each, as a file-lock has.
fn many_names(names: u64) {
    let dir = directory();
    let text = |number: u64| name(&format!("orders/{number:012}"));
    let descriptors = || fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let one = open(dir.path());
    let before = descriptors();
    let entered: Vec<_> =
        (0..names).map(|number| member(&one).find(&text(number)).unwrap()).collect();
    // Other tests open some meanwhile.
    assert!(descriptors() < before + 1_000);
    let later = open(dir.path());
    for number in (0..names).step_by(7) {
        assert_eq!(looked_up(&member(&later), &text(number)), Some(entered[number as usize]));
    }
    let [first, last] = [0, names - 1].map(|number| later.slot(&text(number)).unwrap());
    for slot in [&first, &last] {
        assert_eq!(try_take(slot).unwrap().token, token(1));
    }
    assert!(try_take(&one.slot(&text(names - 1)).unwrap()).is_none());
    assert_eq!(statuses(dir.path()).len() as u64, names);
    let bytes = fs::metadata(dir.path().join("table")).unwrap().blocks() * 512;
    assert!(bytes / names <= 128, "{bytes} bytes for {names} names");
}

/// Slots never move: what others hold and wait for stays where it is while the table grows.
#[test]
fn a_table_that_grows_loses_no_count_of_its_users() {
    const USERS: u64 = 3;
    let dir = directory();
    let (counter, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let counts: u64 = thread::scope(|scope| {
        let count = || {
            let slot = slot(dir.path(), "counter");
            let mut counts = 0;
            while !done.load(Relaxed) || counts < 100 {
                take(&slot);
                let count = counter.load(Relaxed);
                thread::yield_now();
                counter.store(count + 1, Relaxed);
                slot.release(Predecessor::Clean);
                counts += 1;
            }
            counts
        };
        let users: Vec<_> = (0..USERS).map(|_| scope.spawn(count)).collect();
        let growing = open(dir.path());
        let parts = || {
            let member = member(&growing);
            header(&member).slot_parts.iter().filter(|part| part.load(Relaxed) != 0).count()
        };
        let few = parts();
        for number in 0..4_000 {
            growing.slot(&name(&format!("n{number}"))).unwrap();
        }
        assert!(parts() > few + 5);
        done.store(true, Relaxed);
        users.into_iter().map(|user| user.join().unwrap()).sum()
    });
    assert_eq!(counter.load(Relaxed), counts);
    assert_eq!(status(dir.path(), "counter").unwrap().token, token(counts));
}

/// Bytes on the disk, the header and what is reserved ahead among them.
#[test]
fn a_name_of_forty_bytes_costs_no_more_than_128_on_the_disk() {
    let dir = directory();
    let all = member(&open(dir.path()));
    let bytes_per_name = |names: u64| {
        let size = fs::metadata(dir.path().join("table")).unwrap().blocks() * 512;
        size as f64 / names as f64
    };
    for number in 0..20_000_u64 {
        all.find(&name(&format!("{number:040}"))).unwrap();
        if number >= 6_000 && number % 97 == 0 {
            assert!(bytes_per_name(number + 1) <= 128.0, "{number}: {}", bytes_per_name(number));
        }
    }
    // Further than a test has time for, by what the parts will need.
    let needed = |starts: &[u64], count: u64, bytes: u64| {
        starts.iter().find(|start| **start >= count).unwrap() * bytes
    };
    for names in (20_000..3_000_000_u64).step_by(1_111) {
        let chains = names.next_power_of_two().max(1024);
        let all = layout::PARTS_BEGIN
            + needed(&layout::SLOTS, names, 64)
            + needed(&layout::NAMES, names * 10 + 2_000, 4)
            + chains * 4;
        assert!(all as f64 / names as f64 <= 128.0, "{names}: {}", all / names);
    }
}

// ---- forgetting --------------------------------------------------------------------------------

/// redisson#6510: one token per name kept for ever, or reset with its name.
#[test]
fn a_forgotten_name_begins_above_its_last_token() {
    let dir = directory();
    let all = open(dir.path());
    for text in ["a", "b"] {
        let slot = all.slot(&name(text)).unwrap();
        assert_eq!(slot.try_take(token(70)).unwrap().unwrap().token, token(71));
        slot.release(Predecessor::Clean);
    }
    assert!(forget(&all, "a"));
    assert_eq!(statuses(dir.path()).len(), 1);
    // Also a name that never was.
    assert_eq!(take(&slot(dir.path(), "c")).token, token(72));
    assert_eq!(take(&slot(dir.path(), "a")).token, token(72));
    assert_eq!(take(&slot(dir.path(), "b")).token, token(72));
}

/// Reproduced in a prototype: a forgotten name's slot is used again under a process's stale index.
#[test]
fn a_slot_used_again_is_not_taken_for_the_name_it_had() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let stale = one.slot(&name("a")).unwrap();
    assert!(forget(&two, "a"));
    let other = two.slot(&name("b")).unwrap();
    let number = other.places.so_far().unwrap().get().number;
    assert_eq!(number, stale.places.so_far().unwrap().get().number, "the same slot");
    try_take(&stale).unwrap();
    try_take(&other).expect("another name's lock");
    assert!(try_take(&slot(dir.path(), "a")).is_none());
    stale.release(Predecessor::Clean);
    assert!(try_take(&slot(dir.path(), "a")).is_some());
    assert!(try_take(&slot(dir.path(), "b")).is_none());
}

/// What is dropped unused releases nothing.
#[test]
fn another_value_of_a_held_lock_is_dropped_without_letting_go() {
    let dir = directory();
    let all = open(dir.path());
    let [held, unused] = ["a", "a"].map(|text| all.slot(&name(text)).unwrap());
    try_take(&held).unwrap();
    drop(unused);
    assert!(try_take(&slot(dir.path(), "a")).is_none());
    // And what has another name's slot by now.
    held.release(Predecessor::Clean);
    assert!(forget(&all, "a"));
    let other = all.slot(&name("b")).unwrap();
    try_take(&other).unwrap();
    drop(held);
    assert!(try_take(&slot(dir.path(), "b")).is_none());
}

#[test]
fn a_guard_that_was_forgotten_lets_go_with_its_lock() {
    let dir = directory();
    let all = open(dir.path());
    let held = all.slot(&name("a")).unwrap();
    try_take(&held).unwrap();
    drop(held);
    assert_eq!(try_take(&slot(dir.path(), "a")).unwrap().predecessor, Predecessor::Died);
}

/// A waiter for a name with a slot that now belongs to another name, which is held.
#[test]
fn a_name_forgotten_while_its_slot_is_stale_is_looked_up_again() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let stale = one.slot(&name("a")).unwrap();
    assert!(forget(&two, "a"));
    let other = two.slot(&name("b")).unwrap();
    try_take(&other).unwrap();
    take(&stale);
    let until = clock::now() + LONG;
    stale.release(Predecessor::Clean);
    assert!(forget(&two, "a"));
    let taken =
        futures::executor::block_on(stale.take_async(Token::ZERO, until, SlotWish::default()))
            .unwrap();
    assert!(taken.token > token(1));
}

#[test]
fn what_is_used_or_has_something_to_tell_is_not_forgotten() {
    let dir = directory();
    let all = open(dir.path());
    let [held, unclean, wide] =
        ["held", "unclean", "wide"].map(|text| all.slot(&name(text)).unwrap());
    for slot in [&held, &unclean, &wide] {
        try_take(slot).unwrap();
    }
    wide.widen("checkout").unwrap();
    wide.release(Predecessor::Clean);
    unclean.release(Predecessor::Panicked);
    assert!(["held", "unclean", "wide"].iter().all(|text| !forget(&all, text)));
    held.release(Predecessor::Clean);
    assert!(forget(&all, "held"));
    let wide = take(&slot(dir.path(), "wide"));
    assert_eq!(wide.widened_by.as_deref(), Some("checkout"));
    assert_eq!(take(&slot(dir.path(), "unclean")).predecessor, Predecessor::Panicked);
}

/// Near the limit idle names go, and those in use stay; tokens never go back.
#[test]
fn names_forgotten_under_fire_lose_no_count_and_no_token() {
    const BUSY: usize = 6;
    const ROUNDS: u64 = 4_000;
    let dir = directory();
    header(&member(&open(dir.path()))).names_max.store(40, Relaxed);
    let counters: [AtomicU64; BUSY] = Default::default();
    let tokens: [AtomicU64; BUSY] = Default::default();
    thread::scope(|scope| {
        for user in 0..3_u64 {
            let (dir, counters, tokens) = (&dir, &counters, &tokens);
            scope.spawn(move || {
                let all = open(dir.path());
                let mut random = user;
                for round in 0..ROUNDS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = (random >> 33) as usize % BUSY;
                    // Found anew each time, or after a pause in which others forget it.
                    let slot = all.slot(&name(&format!("busy{at}"))).unwrap();
                    if round % 16 == 0 {
                        all.slot(&name(&format!("{user} once {round}"))).unwrap();
                    }
                    let taken = take(&slot);
                    let last = tokens[at].swap(taken.token.get(), Relaxed);
                    assert!(taken.token.get() > last, "{} after {last}", taken.token);
                    let count = counters[at].load(Relaxed);
                    thread::yield_now();
                    counters[at].store(count + 1, Relaxed);
                    slot.release(Predecessor::Clean);
                }
            });
        }
    });
    let sum: u64 = counters.iter().map(|counter| counter.load(Relaxed)).sum();
    assert_eq!(sum, 3 * ROUNDS);
    let names = statuses(dir.path()).len();
    assert!(names < 400, "{names} of 750 were kept");
}

// ---- deaths in the middle of a change ----------------------------------------------------------

/// What a helper is to do so that it comes to this step.
fn way_to(step: Step) -> Option<&'static str> {
    match step {
        Step::EnterIntended | Step::EnterReserved | Step::EnterFilled | Step::EnterLinked => {
            Some("enter 1 new")
        }
        Step::TextPlaced => Some("widen-name old"),
        Step::ForgetWon
        | Step::ForgetIntended
        | Step::ForgetFloor
        | Step::ForgetUnnamed
        | Step::ForgetGeneration
        | Step::ForgetUnlinked
        | Step::ForgetDone
        | Step::RetireBegin
        | Step::RetireBegun => Some("forget old"),
        Step::GrowReserved | Step::DoubleFilled | Step::PartedOne => Some("enter 2500 more"),
        _ => None,
    }
}

#[test]
fn a_death_or_stop_while_changing_the_table_leaves_it_whole() {
    let steps = Step::ALL.iter().filter(|step| way_to(**step).is_some());
    let mut reached = 0;
    for (step, again) in steps.flat_map(|step| [(*step, false), (*step, true)]) {
        let dir = directory();
        let all = open(dir.path());
        let old = all.slot(&name("old")).unwrap();
        assert_eq!(old.try_take(token(41)).unwrap().unwrap().token, token(42));
        old.release(Predecessor::Clean);
        if again {
            // A slot that was used before is taken, and the chain has another end.
            all.slot(&name("free")).unwrap();
            assert!(forget(&all, "free"));
        }
        let mut helper = Helper::start(dir.path());
        assert_eq!(helper.ask("member"), "done");
        assert_eq!(helper.ask(&format!("end-at {step:?}")), "done");
        helper.say(way_to(step).unwrap());
        let ended = helper.child.wait().unwrap();
        assert!(!ended.success(), "{step:?} was not reached");
        reached += 1;
        // No process waits for it, nothing is lost, and everything goes on.
        for text in ["old", "new", "free", "another"] {
            let slot = slot(dir.path(), text);
            let taken = slot.take(Token::ZERO, clock::now() + LONG).unwrap();
            assert!(text != "old" || taken.token > token(42), "{step:?}: {}", taken.token);
            assert!(try_take(&self::slot(dir.path(), text)).is_none());
            slot.release(Predecessor::Clean);
        }
        let found: Vec<_> = statuses(dir.path()).into_iter().map(|status| status.name).collect();
        let names: HashSet<_> = found.iter().cloned().collect();
        assert_eq!(found.len(), names.len(), "{step:?}: {found:?}");
        for name in names {
            let found = member(&all).find(&name).unwrap();
            assert_eq!(looked_up(&member(&all), &name), Some(found));
        }
        // Every slot is free or has a name.
        check_slots(&member(&all));
    }
    assert!(reached >= 30, "{reached}");
}

/// Counts every slot once: in a chain, or among the free ones.
fn check_slots(member: &Member) {
    let (table, header) = (&member.table, header(member));
    let mut seen = HashSet::new();
    let mut follow = |mut next: u32, live: bool| {
        while let Some(number) = next.checked_sub(1) {
            let slot = table.slot(number).unwrap();
            assert_eq!(Marks::of(slot).is_live(), live);
            // A chain that is not parted yet runs through another's names.
            seen.insert(number);
            next = slot.next.load(Relaxed);
        }
    };
    for chain in 0..table.chains().unwrap() {
        follow(table.head(chain).unwrap().load(Relaxed), true);
    }
    for units in 0..=layout::UNITS_MAX {
        follow(header.free[units].load(Relaxed), false);
    }
    assert_eq!(seen.len(), header.slots_used.load(Relaxed) as usize, "slots in sight");
}

#[test]
fn a_stopped_changer_keeps_no_process_from_names_that_there_are() {
    let dir = directory();
    drop(slot(dir.path(), "old"));
    let mut helper = stopped_while_it_enters(dir.path());
    let old = slot(dir.path(), "old");
    take(&old);
    assert!(try_take(&slot(dir.path(), "old")).is_none());
    old.release(Predecessor::Clean);
    helper.signal(Signal::CONT);
    assert_eq!(helper.hear(), "done");
    take(&slot(dir.path(), "new"));
}

/// A process that is stopped when it has filled the slot of the name `new`, and has not linked it.
fn stopped_while_it_enters(dir: &Path) -> Helper {
    let mut helper = Helper::start(dir);
    assert_eq!(helper.ask("member"), "done");
    assert_eq!(helper.ask("stop-at EnterFilled"), "done");
    helper.say("enter 1 new");
    helper.wait_until_stopped();
    helper
}

/// A holder of the name looks at the share records of its process.
#[test]
fn a_reader_that_waits_for_the_structure_keeps_no_thread_from_the_share_records() {
    let dir = directory();
    let all = open(dir.path());
    let old = all.slot(&name("old")).unwrap();
    take(&old);
    old.release(Predecessor::Clean);
    let mut helper = stopped_while_it_enters(dir.path());
    let member = member(&all);
    thread::scope(|scope| {
        let reader = scope.spawn(|| old.prepare_to_read());
        let begin = clock::now();
        while member.changing.try_lock().is_some() {
            assert!(clock::now().since(begin) < LONG, "the reader asks for the structure");
            thread::yield_now();
        }
        assert!(member.shares.try_lock().is_some());
        helper.signal(Signal::CONT);
        assert_eq!(helper.hear(), "done");
        reader.join().unwrap().unwrap();
    });
}

/// A look that was led to the slot before may have found the name there, although no chain does.
#[test]
fn a_name_that_was_found_while_its_maker_died_stays_where_it_was_found() {
    let dir = directory();
    let all = open(dir.path());
    all.slot(&name("new")).unwrap();
    let number = looked_up(&member(&all), &name("new")).unwrap().number;
    assert!(forget(&all, "new"));
    let mut helper = stopped_while_it_enters(dir.path());
    // What a look sees that loaded the link to this slot before the name was forgotten.
    let member = member(&all);
    let slot = member.table.slot(number).unwrap();
    assert!(Marks::of(slot).is_live());
    let seen = Found { number, generation: slot.generation.load(Acquire) };
    helper.kill();
    let names = header(&member).names.load(Relaxed);
    assert_eq!(member.find(&name("new")).unwrap(), seen);
    assert_eq!(header(&member).names.load(Relaxed), names + 1);
    check_slots(&member);
}

/// A process that found the name before its generation was raised finds another one at its lock;
/// none finds the name under the new one.
#[test]
fn a_name_being_forgotten_is_not_found_under_its_next_generation() {
    for step in [Step::ForgetGeneration, Step::ForgetUnlinked, Step::ForgetDone] {
        let dir = directory();
        let all = open(dir.path());
        drop(all.slot(&name("old")).unwrap());
        let mut helper = Helper::start(dir.path());
        assert_eq!(helper.ask("member"), "done");
        assert_eq!(helper.ask(&format!("stop-at {step:?}")), "done");
        helper.say("forget old");
        helper.wait_until_stopped();
        assert_eq!(looked_up(&member(&all), &name("old")), None, "{step:?}");
    }
}

/// A reader that was stopped between a name's length and its bytes finds the next name's bytes.
#[test]
fn a_name_that_is_forgotten_while_it_is_read_is_no_name_and_no_damage() {
    for next in ["new", "another"] {
        let dir = directory();
        let all = open(dir.path());
        drop(all.slot(&name("first")).unwrap());
        let number = looked_up(&member(&all), &name("first")).unwrap().number;
        let mut helper = Helper::start(dir.path());
        let ask = format!("name-of {number}");
        assert_eq!(helper.ask(&ask), format!("{:?}", Ok::<_, ()>(Some(name("first")))));
        assert_eq!(helper.ask("stop-at NameSeen"), "done");
        helper.say(&ask);
        helper.wait_until_stopped();
        assert!(forget(&all, "first"));
        drop(all.slot(&name(next)).unwrap());
        assert_eq!(looked_up(&member(&all), &name(next)).unwrap().number, number);
        helper.signal(Signal::CONT);
        assert_eq!(helper.hear(), "Ok(None)", "{next}");
        assert_eq!(helper.ask(&ask), format!("{:?}", Ok::<_, ()>(Some(name(next)))));
    }
}

/// Words by which a helper does what only this engine can.
pub(in super::super) fn obey(word: &str, argument: &str, dir: &Path) -> Option<String> {
    thread_local! {
        static ALL: std::cell::RefCell<Option<Arc<TableDirectory>>> = const { std::cell::RefCell::new(None) };
    }
    let all = ALL.with_borrow_mut(|all| all.get_or_insert_with(|| open(dir)).clone());
    let step = || *Step::ALL.iter().find(|step| format!("{step:?}") == argument).unwrap();
    match word {
        "member" => drop(member(&all)),
        "end-at" => end_at(step(), 0, Signal::KILL),
        "late-at" => dwell_at(step(), Duration::from_millis(2)),
        "lock-again" => {
            let slot = all.slot(&name(argument)).unwrap();
            loop {
                take(&slot);
                thread::sleep(Duration::from_millis(1));
                slot.release(Predecessor::Clean);
            }
        }
        "stop-at" => end_at(step(), 0, Signal::STOP),
        "open-other" => drop(open(Path::new(argument))),
        "enter" => {
            let (count, prefix) = argument.split_once(' ').unwrap();
            for number in 0..count.parse().unwrap() {
                let text = if number == 0 { prefix.into() } else { format!("{prefix}{number}") };
                drop(all.slot(&name(&text)).unwrap());
            }
        }
        "forget" => return Some(forget(&all, argument).to_string()),
        "name-of" => {
            let table = &member(&all).table;
            let slot = table.slot(argument.parse().unwrap()).unwrap();
            return Some(format!("{:?}", table.name_of(slot)));
        }
        "widen-name" => {
            let slot = all.slot(&name(argument)).unwrap();
            try_take(&slot).unwrap();
            slot.widen("helper").unwrap();
            slot.release(Predecessor::Clean);
        }
        "probe" => {
            // As one that is stopped in the middle of a probe.
            let file = File::open(presences_path(dir, argument)).unwrap();
            fs4::FileExt::try_lock_shared(&file).unwrap();
            std::mem::forget(file);
        }
        _ => return None,
    }
    Some("done".into())
}

fn presences_path(dir: &Path, id: &str) -> PathBuf {
    dir.join("presence").join(id)
}

// ---- turns -------------------------------------------------------------------------------------

/// xapi sm#683: a process that locks again at once leaves no other a turn.
#[test]
fn a_process_that_locks_again_at_once_leaves_another_its_turn() {
    const TURNS: u64 = 10;
    /// So many holds of the first, on average, before each turn: one or two are needed.
    const HOLDS_MAX: u64 = 50;
    let dir = directory();
    let [mut greedy, mut late] = [(); 2].map(|()| Helper::start(dir.path()));
    assert_eq!(late.ask("slot a"), "done");
    // A free lock is never free any more when it comes.
    assert_eq!(late.ask("late-at TakeGrab"), "done");
    greedy.say("lock-again a");
    while status(dir.path(), "a").is_none_or(|found| found.token == Token::ZERO) {
        thread::yield_now();
    }
    let before = status(dir.path(), "a").unwrap().token.get();
    let mut last = before;
    for _ in 0..TURNS {
        let told = late.ask("turn");
        last = told.split(' ').nth(1).and_then(|token| token.parse().ok()).expect("a token");
    }
    assert!(last - before <= TURNS * HOLDS_MAX, "{TURNS} turns in {} locks", last - before);
}

// ---- presences ---------------------------------------------------------------------------------

#[test]
fn a_presence_says_which_process_it_is_and_goes_in_good_order() {
    let dir = directory();
    assert_eq!(presences(dir.path()).len(), 0, "opening is not using");
    let all = open(dir.path());
    let slot = all.slot(&name("a")).unwrap();
    let text = fs::read_to_string(presence_of(dir.path(), &all)).unwrap();
    assert!(text.contains(&format!("\n{}\n", std::process::id())), "{text}");
    assert_eq!(presences(dir.path()).len(), 1);
    drop((all, slot));
    assert_eq!(presences(dir.path()).len(), 0);
}

/// stellar-core#652: a stale pid file. Ids are not used again, whatever becomes of their files.
#[test]
fn ids_are_never_used_again() {
    let dir = directory();
    let ids: Vec<_> = (0..3).map(|_| member(&open(dir.path())).id).collect();
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    let next = ids[2].get() + 1;
    fs::write(presences_path(dir.path(), &format!("{next:010x}")), "another's").unwrap();
    assert_eq!(member(&open(dir.path())).id.get(), next + 1);
}

#[test]
fn a_presence_deleted_under_its_holder_is_damage_until_it_is_made_again() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let (held, waiting) = (one.slot(&name("a")).unwrap(), two.slot(&name("a")).unwrap());
    try_take(&held).unwrap();
    fs::remove_file(presence_of(dir.path(), &one)).unwrap();
    let error = waiting.try_take(Token::ZERO).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("presence"), "{error}");
    // A process that builds a lock sees to its own presence.
    one.slot(&name("b")).unwrap();
    assert!(try_take(&waiting).is_none());
    held.release(Predecessor::Clean);
    assert!(try_take(&waiting).is_some());
}

/// The old file may still be open in a waiter: it stays locked.
#[test]
fn a_presence_made_again_does_not_let_the_old_one_go() {
    let dir = directory();
    let one = open(dir.path());
    let held = one.slot(&name("a")).unwrap();
    try_take(&held).unwrap();
    let path = presence_of(dir.path(), &one);
    let kept = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    one.slot(&name("b")).unwrap();
    assert!(path.exists());
    assert!(fs4::FileExt::try_lock_shared(&kept).is_err(), "as a waiter would probe it");
}

/// Reproduced in a prototype: a prober that is stopped makes the dead immortal.
#[test]
fn a_prober_stopped_in_its_probe_does_not_keep_the_dead_alive() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    let mut holder = Helper::holding(dir.path(), "a");
    let held_by = presences(dir.path()).into_iter().max().unwrap();
    holder.kill();
    let mut prober = Helper::start(dir.path());
    assert_eq!(prober.ask(&format!("probe {held_by}")), "done");
    prober.signal(Signal::STOP);
    assert_eq!(try_take(&one).unwrap().predecessor, Predecessor::Died);
}

/// What cannot be found out is no death (cargo#2623: fail closed).
#[test]
fn a_presence_that_cannot_be_opened_counts_as_alive_and_is_told() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let (held, waiting) = (one.slot(&name("a")).unwrap(), two.slot(&name("a")).unwrap());
    try_take(&held).unwrap();
    let path = presence_of(dir.path(), &one);
    fs::remove_file(&path).unwrap();
    symlink("/dev/null", &path).unwrap();
    assert!(try_take(&waiting).is_none());
    let error = waiting.take(Token::ZERO, clock::now()).unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("cannot find out"), "{error}");
}

/// The fast path is tried first, and fails where another process waits.
#[test]
fn a_quiet_release_that_finds_a_waiter_frees_the_lock() {
    let dir = directory();
    let (one, two) = (slot(dir.path(), "a"), slot(dir.path(), "a"));
    take(&one);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| two.take(Token::ZERO, clock::now() + LONG).unwrap());
        while !one.is_waited_for() {
            thread::yield_now();
        }
        one.found(fork::generation()).unwrap().release(token(1));
        assert_eq!(waiting.join().unwrap().token, token(2));
    });
}

/// Rights that were dropped after the directory was opened: it would wait for ever behind the dead.
#[test]
fn a_presence_that_may_not_be_looked_at_any_more_is_an_error_to_the_waiter() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = directory();
    let held = slot(dir.path(), "a");
    try_take(&held).unwrap();
    let mut waiter = Helper::start(dir.path());
    assert_eq!(waiter.ask("slot a"), "done");
    let owners_alone = PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir.path().join("presence"), owners_alone).unwrap();
    assert_eq!(waiter.ask("drop-rights"), "done");
    for how in ["fail-try", "fail-wait"] {
        let answer = waiter.ask(how);
        assert!(answer.starts_with("error Refused"), "{how}: {answer}");
        assert!(answer.contains("cannot find out whether the holder lives"), "{how}: {answer}");
    }
}

/// A process that waits for many names of one owner.
#[test]
fn waiters_behind_one_owner_share_a_descriptor() {
    let dir = directory();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let texts: Vec<_> = (0..40).map(|number| format!("name {number}")).collect();
    let held: Vec<_> = texts.iter().map(|text| one.slot(&name(text)).unwrap()).collect();
    held.iter().for_each(|slot| drop(try_take(slot).unwrap()));
    let presence = fs::metadata(presence_of(dir.path(), &one)).unwrap().ino();
    let open_presences = || {
        let all = fs::read_dir("/proc/self/fd").unwrap().map_while(Result::ok);
        all.filter(|fd| fs::metadata(fd.path()).is_ok_and(|found| found.ino() == presence)).count()
    };
    let before = open_presences();
    thread::scope(|scope| {
        for text in &texts {
            let slot = two.slot(&name(text)).unwrap();
            scope.spawn(move || {
                slot.take(Token::ZERO, clock::now() + LONG).unwrap();
                slot.release(Predecessor::Clean);
            });
        }
        // All of them wait, and have looked more than once.
        let waits = |slot: &TableSlot| slot.is_waited_for();
        while !held.iter().all(waits) || open_presences() - before != 1 {
            thread::yield_now();
        }
        held.iter().for_each(|slot| slot.release(Predecessor::Clean));
    });
}

/// By its tokens it would notice after 65,536 locks.
#[test]
fn a_lock_that_is_taken_seldom_notices_a_replaced_directory_at_once() {
    let dir = directory();
    let path = dir.path().join("locks");
    fs::create_dir(&path).unwrap();
    let slot = slot(&path, "a");
    for _ in 0..3 {
        take(&slot);
        slot.release(Predecessor::Clean);
    }
    let member = member(&slot.directory);
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    fs::create_dir(&path).unwrap();
    // As the alarm does when a second has passed.
    member.is_timed.store(false, SeqCst);
    member.due.store(0, SeqCst);
    member.look_at.store(0, Relaxed);
    let error = slot.try_take(Token::ZERO).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("replaced"), "{error}");
}

/// Its locks are quiet, until an alarm has one of them look.
#[test]
fn a_lock_that_is_taken_often_notices_a_replaced_directory_too() {
    let dir = directory();
    let path = dir.path().join("locks");
    fs::create_dir(&path).unwrap();
    let slot = slot(&path, "a");
    let turn = || {
        slot.try_take(Token::ZERO).map(|taken| {
            taken.unwrap();
            slot.release(Predecessor::Clean);
        })
    };
    let member = member(&slot.directory);
    while !member.is_timed.load(SeqCst) {
        turn().unwrap();
    }
    assert!(member.has_reserved(2), "its locks are quiet");
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    fs::create_dir(&path).unwrap();
    let error = loop {
        if let Err(error) = turn() {
            break error;
        }
        thread::yield_now();
    };
    assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
}

#[test]
fn a_wait_in_vain_says_how_many_processes_stood_before_it() {
    let dir = directory();
    let [one, two, three] = [(); 3].map(|()| slot(dir.path(), "a"));
    let in_vain = || three.take(Token::ZERO, clock::now() + Duration::from_millis(20)).unwrap_err();
    try_take(&one).unwrap();
    assert_eq!(in_vain().waiters_ahead(), Some(0));
    let mut wait = Box::pin(two.take_async(Token::ZERO, Time::NEVER, SlotWish::default()));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    while status(dir.path(), "a").unwrap().waiters.is_empty() {
        thread::yield_now();
    }
    let error = in_vain();
    assert_eq!(error.waiters_ahead(), Some(1), "{error}");
    assert_eq!(error.holder().and_then(|holder| holder.pid), Some(std::process::id()));
    assert_eq!((two.waiters_before_own(), three.waiters_before_own()), (0, 1));
    // A name of host scope: what has its slot is no holder, but waits for its lease.
    drop(wait);
    one.widen("another").unwrap();
    let error = in_vain();
    assert_eq!((error.waiters_ahead(), error.holder()), (Some(1), None), "{error}");
}

/// Each sweep has its time, and the next one goes on where it stopped: beside a million names none would
/// come to the end else.
#[test]
fn sweeps_that_have_no_time_come_to_an_end_all_the_same() {
    let dir = directory();
    let all = open(dir.path());
    let names = 5 * 1024;
    for number in 0..names {
        all.slot(&name(&format!("name {number}"))).unwrap();
    }
    let mut holder = Helper::holding(dir.path(), "last");
    let before = presences(dir.path());
    holder.kill();
    let member = member(&all);
    let mut sweeps = 0;
    while presences(dir.path()).len() == before.len() {
        sweeps += 1;
        assert!(sweeps < 20, "it begins anew each time");
        member.sweep(Duration::ZERO);
        if sweeps == 1 {
            // The time for looking at presences is over at once: as if the round had begun.
            member.begin_round(clock::now() + LONG);
        }
    }
    assert!(sweeps >= names / 1024, "{sweeps} sweeps of 1024 slots");
    let held = slot(dir.path(), "last");
    assert_eq!(try_take(&held).unwrap().predecessor, Predecessor::Died);
}

#[test]
fn presences_of_the_dead_are_swept_once_no_word_names_them() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "held");
    let mut idle = Helper::start(dir.path());
    assert_eq!(idle.ask("slot idle"), "done");
    let alive = slot(dir.path(), "alive");
    try_take(&alive).unwrap();
    holder.kill();
    idle.kill();
    assert_eq!(presences(dir.path()).len(), 3);
    for _ in 0..130 {
        member(&open(dir.path()));
    }
    assert_eq!(presences(dir.path()).len(), 1, "that of the living");
    // What it held is free, and its end is told.
    let held = status(dir.path(), "held").unwrap();
    assert_eq!((held.holder, held.predecessor), (None, Predecessor::Died));
    assert_eq!(take(&slot(dir.path(), "held")).predecessor, Predecessor::Died);
    assert!(try_take(&slot(dir.path(), "alive")).is_none());
}

/// Other locks of the same process are its own as before.
#[test]
fn a_proof_of_life_is_of_one_lock_only() {
    let dir = directory();
    let all = open(dir.path());
    let [given, kept] = ["given", "kept"].map(|text| all.slot(&name(text)).unwrap());
    for slot in [&given, &kept] {
        try_take(slot).unwrap();
    }
    let proof = given.proof_of_life().unwrap();
    given.widen("checkout").unwrap();
    given.raise_token(token(50));
    given.release(Predecessor::Panicked);
    assert!(try_take(&slot(dir.path(), "given")).is_none());
    assert!(try_take(&slot(dir.path(), "kept")).is_none());
    kept.release(Predecessor::Clean);
    assert!(try_take(&slot(dir.path(), "kept")).is_some());
    drop(proof);
    // Another test's child may have the proof until it runs its program.
    let taken = take(&slot(dir.path(), "given"));
    assert_eq!((taken.token, taken.predecessor), (token(51), Predecessor::Panicked));
    assert_eq!(taken.widened_by.as_deref(), Some("checkout"));
}

// ---- tokens ------------------------------------------------------------------------------------

fn reserve(path: &Path) -> u64 {
    fs::read_to_string(path.join("tokens")).unwrap().trim_end().parse().unwrap()
}

#[test]
fn no_token_is_granted_beyond_the_reserve() {
    let dir = directory();
    assert_eq!(reserve(dir.path()), reserve::STEP);
    let slot = slot(dir.path(), "a");
    for above in [1 << 31, (1 << 32) + 5, 1 << 50] {
        let taken = slot.try_take(token(above)).unwrap().unwrap();
        assert!(reserve(dir.path()) >= taken.token.get() + reserve::STEP / 2);
        slot.release(Predecessor::Clean);
    }
    // A host-scope token is written back, and must be exceeded after a loss of power too.
    try_take(&slot).unwrap();
    slot.raise_token(token(7 << 40));
    assert!(reserve(dir.path()) > 7 << 40);
}

#[test]
fn a_token_that_is_none_is_damage() {
    let dir = directory();
    let slot = slot(dir.path(), "a");
    let shared = &slot.places.so_far().unwrap().get().slot;
    for number in [1 << 63, u64::MAX] {
        shared.token.store(number, Relaxed);
        let error = slot.try_take(Token::ZERO).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
    }
    shared.token.store(Token::MAX.get() - 1, Relaxed);
    assert_eq!(try_take(&slot).unwrap().token, Token::MAX);
    slot.release(Predecessor::Clean);
    assert_eq!(slot.try_take(Token::ZERO).unwrap_err().kind(), LockErrorKind::Refused);
    assert_eq!(reserve(dir.path()), Token::MAX.get());
}

#[test]
fn a_reserve_that_was_deleted_is_written_again() {
    let dir = directory();
    drop(slot(dir.path(), "a"));
    fs::remove_file(dir.path().join("tokens")).unwrap();
    drop(slot(dir.path(), "a"));
    assert!(reserve(dir.path()) >= reserve::STEP);
    for garbage in ["", "many\n", "-1\n", "9223372036854775808\n", "12", "\u{1f512}\n"] {
        fs::write(dir.path().join("tokens"), garbage).unwrap();
        let error = open(dir.path()).slot(&name("a")).err().unwrap();
        assert_eq!(error.kind(), LockErrorKind::Damaged, "{garbage:?}: {error}");
        assert!(error.to_string().contains("tokens"), "{error}");
    }
}

/// Writes another boot's id into the table.
fn change_boot(path: &Path) {
    let table = File::options().write(true).open(path.join("table")).unwrap();
    table.write_all_at(&[7; 16], 8).unwrap();
}

#[test]
fn after_a_reboot_a_table_starts_empty_above_every_token() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    let before = try_take(&one).unwrap().token;
    let id = member(&one.directory).id;
    drop(one);
    let reserved = reserve(dir.path());
    change_boot(dir.path());
    let all = open(dir.path());
    assert!(statuses(dir.path()).is_empty());
    let slot = all.slot(&name("a")).unwrap();
    let taken = try_take(&slot).unwrap();
    assert!(taken.token > before && taken.token == token(reserved + 1), "{}", taken.token);
    assert!(reserve(dir.path()) > reserved);
    assert!(member(&all).id > id, "ids are not used again");
}

/// A reboot of this machine does not end the holders on others.
#[test]
fn after_a_reboot_names_of_host_scope_still_are_and_others_are_gone() {
    const NAMES: usize = 3_000;
    let dir = directory();
    let all = open(dir.path());
    for number in 0..NAMES {
        let slot = all.slot(&name(&format!("orders/{number}"))).unwrap();
        try_take(&slot).unwrap();
        if number % 2 == 0 {
            slot.widen(&format!("checkout {number}")).unwrap();
        }
        slot.release(if number % 3 == 0 { Predecessor::Panicked } else { Predecessor::Clean });
    }
    // One with a holder that died, and one without a text that says what widened it.
    let held = all.slot(&name("held")).unwrap();
    try_take(&held).unwrap();
    held.widen("a process that dies").unwrap();
    let unsaid = all.slot(&name("unsaid")).unwrap();
    let shared = &unsaid.places.so_far().unwrap().get().slot;
    shared.word.store(Word::FREE.widened().bits(), Relaxed);
    drop((all, held, unsaid));
    for _ in 0..2 {
        let reserved = reserve(dir.path());
        change_boot(dir.path());
        let all = open(dir.path());
        assert_eq!(statuses(dir.path()).len(), NAMES / 2 + 2);
        for number in (0..NAMES).step_by(50).chain([1]) {
            let slot = all.slot(&name(&format!("orders/{number}"))).unwrap();
            let taken = try_take(&slot).unwrap();
            let wide = (number % 2 == 0).then(|| format!("checkout {number}"));
            assert_eq!(taken.widened_by, wide, "{number}");
            // Of a wide name the service counts the tokens.
            let first = reserved + (number % 2) as u64;
            assert_eq!((taken.token, taken.predecessor), (token(first), Predecessor::Clean));
            slot.release(Predecessor::Clean);
        }
        let told = |text| take(&slot(dir.path(), text)).widened_by;
        assert_eq!(told("held").as_deref(), Some("a process that dies"));
        assert_eq!(told("unsaid").as_deref(), Some("an unknown process"));
        assert!(all.inspect().unwrap().iter().all(Result::is_ok));
        check_slots(&member(&all));
    }
}

/// The table is not synced, and `DIR/wide` is.
#[test]
fn a_mark_that_was_lost_with_the_power_is_there_again() {
    let dir = directory();
    let all = open(dir.path());
    let lost = all.slot(&name("lost")).unwrap();
    try_take(&lost).unwrap();
    lost.widen("checkout").unwrap();
    lost.release(Predecessor::Clean);
    let shared = &lost.places.so_far().unwrap().get().slot;
    shared.word.store(Word::FREE.bits(), Relaxed);
    drop((all, lost));
    change_boot(dir.path());
    assert_eq!(take(&slot(dir.path(), "lost")).widened_by.as_deref(), Some("checkout"));
    // With the table itself.
    fs::remove_file(dir.path().join("table")).unwrap();
    assert_eq!(take(&slot(dir.path(), "lost")).widened_by.as_deref(), Some("checkout"));
}

/// A process that dies while it makes the table leaves the old one, and a day later nothing.
#[test]
fn a_death_while_starting_a_table_anew_loses_no_name_of_host_scope() {
    let dir = directory();
    let all = open(dir.path());
    let wide = all.slot(&name("wide")).unwrap();
    try_take(&wide).unwrap();
    wide.widen("checkout").unwrap();
    drop((all, wide));
    change_boot(dir.path());
    let elsewhere = directory();
    for step in [Step::EnterIntended, Step::EnterReserved, Step::EnterFilled, Step::EnterLinked] {
        let mut helper = Helper::start(elsewhere.path());
        assert_eq!(helper.ask(&format!("end-at {step:?}")), "done");
        helper.say(&format!("open-other {}", dir.path().display()));
        assert!(!helper.child.wait().unwrap().success(), "{step:?} was not reached");
    }
    assert_eq!(take(&slot(dir.path(), "wide")).widened_by.as_deref(), Some("checkout"));
    assert_eq!(take(&slot(dir.path(), "other")).widened_by, None);
}

/// For users that move to a new directory while something remembers the old one's tokens.
#[test]
fn a_reserve_that_was_there_before_the_first_opening_is_begun_above() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokens"), "1000000\n").unwrap();
    #[cfg(feature = "cli")]
    {
        use super::super::{checkup::examine, dir::report::Level};
        assert!(examine(dir.path()).unwrap().iter().all(|found| found.level < Level::Trouble));
    }
    assert_eq!(take(&slot(dir.path(), "a")).token, token(1_000_001));
}

/// There no user may replace another user's file.
#[test]
fn in_a_sticky_directory_only_its_owner_starts_the_table_anew() {
    let dir = tempfile::tempdir().unwrap();
    if fs::metadata(dir.path()).unwrap().uid() != 0 {
        return eprintln!("SKIPPED: only root can become another user");
    }
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    drop(slot(dir.path(), "a"));
    change_boot(dir.path());
    let error = Helper::start_as(dir.path(), 65534, 65534).ask("slot a");
    assert!(error.starts_with("error Refused"), "{error}");
    drop(slot(dir.path(), "a"));
    assert_eq!(Helper::start_as(dir.path(), 65534, 65534).ask("slot a"), "done");
}

/// LXC and systemd-nspawn give every container a boot id of its own.
#[test]
fn another_boot_id_counts_only_when_no_process_is_alive() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    try_take(&one).unwrap();
    change_boot(dir.path());
    assert!(try_take(&slot(dir.path(), "a")).is_none());
    one.release(Predecessor::Clean);
    assert_eq!(take(&slot(dir.path(), "a")).token, token(2));
}

// ---- files that are not what they should be ----------------------------------------------------

#[test]
fn the_engine_is_that_of_the_directory_unless_one_is_chosen() {
    use super::super::Directory as Any;
    let choose = |engine| Options { engine, ..Options::default() };
    for (there, other) in
        [(EngineKind::File, EngineKind::Table), (EngineKind::Table, EngineKind::File)]
    {
        let dir = directory_of(there);
        let unchosen = Any::open(dir.path(), &choose(None)).unwrap();
        let slot = unchosen.slot(&name("a")).unwrap();
        slot.try_take(Token::ZERO, "").unwrap().unwrap();
        let chosen = Any::open(dir.path(), &choose(Some(there))).unwrap();
        let second = chosen.slot(&name("a")).unwrap();
        assert!(second.try_take(Token::ZERO, "").unwrap().is_none());
        let error = Any::open(dir.path(), &choose(Some(other))).err().unwrap();
        assert_eq!(error.kind(), LockErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains("tierlock table 3") && text.contains("tierlock file-lock 1"));
    }
    let dir = tempfile::tempdir().unwrap();
    Any::open(dir.path(), &choose(None)).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "tierlock table 3\n");
}

/// filelock#574, jj#8729: a file deleted or replaced under its users lets two in.
#[test]
fn a_table_removed_or_replaced_under_us_is_told_before_any_death_is_acted_upon() {
    let damage: [fn(&Path); 4] = [
        |path| fs::remove_file(path.join("table")).unwrap(),
        |path| {
            fs::copy(path.join("table"), path.join("copy")).unwrap();
            fs::rename(path.join("copy"), path.join("table")).unwrap();
        },
        |path| fs::remove_dir_all(path).unwrap(),
        |path| {
            fs::rename(path, path.with_extension("older")).unwrap();
            drop(open(path));
        },
    ];
    for damage in damage {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks");
        let all = open(&path);
        let one = all.slot(&name("a")).unwrap();
        let mut holder = Helper::holding(&path, "a");
        damage(&path);
        assert!(!matches!(one.try_take(Token::ZERO), Ok(Some(_))), "its holder lives");
        holder.kill();
        for result in [one.try_take(Token::ZERO).map(drop), all.slot(&name("new")).map(drop)] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
            let text = error.to_string();
            assert!(text.contains("removed") || text.contains("replaced"), "{text}");
        }
    }
}

#[test]
fn a_table_removed_while_a_process_lives_is_not_made_again() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    fs::remove_file(dir.path().join("table")).unwrap();
    let error = open_error(dir.path());
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("removed while a process uses it"), "{error}");
    drop(one);
    open(dir.path());
}

/// dpibreak#16, CVE-2025-68146 (filelock).
#[test]
fn links_in_place_of_the_tables_files_are_not_followed() {
    for file in ["table", "tokens", "presence", "format"] {
        let dir = directory();
        drop(slot(dir.path(), "a"));
        let place = dir.path().join(file);
        fs::rename(&place, dir.path().join("elsewhere")).unwrap();
        symlink("elsewhere", &place).unwrap();
        let error = match try_open(dir.path()) {
            Ok(all) => all.slot(&name("a")).err().expect("it opened"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), LockErrorKind::Damaged, "{file}: {error}");
    }
}

#[test]
fn what_is_no_table_is_damage_and_stays_as_it_is() {
    let dir = directory();
    let path = dir.path().join("table");
    let whole = fs::read(&path).unwrap();
    let mut other_magic = whole.clone();
    other_magic[0] ^= 1;
    for content in [vec![], b"hello".to_vec(), vec![0; 8192], whole[..8000].to_vec(), other_magic] {
        fs::write(&path, &content).unwrap();
        let error = open_error(dir.path());
        assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains("table"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    // Cut off behind its header: found as soon as it matters.
    fs::write(&path, &whole[..8192]).unwrap();
    let error = open(dir.path()).slot(&name("a")).err().unwrap();
    assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(open_error(dir.path()).kind(), LockErrorKind::Damaged);
}

/// A directory with a few names, made once and copied.
fn specimen() -> &'static [u8] {
    static SPECIMEN: FirstMade<Vec<u8>> = FirstMade::new();
    SPECIMEN.get_or_make(|| {
        let dir = directory();
        let all = open(dir.path());
        for number in 0..40 {
            let slot = all.slot(&name(&format!("name {number}"))).unwrap();
            try_take(&slot).unwrap();
            if number % 5 == 0 {
                slot.widen("a process").unwrap();
            }
            slot.release(if number % 3 == 0 { Predecessor::Died } else { Predecessor::Clean });
        }
        assert!(forget(&all, "name 1"));
        fs::read(dir.path().join("table")).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever stands in the table, no process crashes, hangs or reads beyond it.
    #[test]
    fn hostile_bytes_in_the_table_do_no_harm(
        flips in proptest::collection::vec((any::<u32>(), any::<u8>(), 0..3_u8), 1..60),
        cut in proptest::option::weighted(0.2, 0_usize..40_000),
    ) {
        let dir = directory();
        let mut bytes = specimen().to_vec();
        for (at, value, place) in flips {
            // The header, the slots, or anywhere.
            let (from, length) = [(8, 4600), (8192, 4096), (0, bytes.len())][usize::from(place)];
            bytes[from + at as usize % length] = value;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()).max(1));
        fs::write(dir.path().join("table"), &bytes).unwrap();
        let Ok(all) = try_open(dir.path()) else { return Ok(()) };
        let _ = all.inspect();
        for text in ["name 0", "name 1", "name 2", "name 39", "new"] {
            let Ok(slot) = all.slot(&name(text)) else { continue };
            slot.holder();
            if let Ok(Some(_)) = slot.try_take(Token::ZERO) {
                let other = open(dir.path()).slot(&name(text));
                if let Ok(other) = other {
                    // A hostile index can lead two askers to two slots, never to one twice.
                    let same = other.places.so_far().unwrap().get().number
                        == slot.places.so_far().unwrap().get().number;
                    let taken = matches!(other.try_take(Token::ZERO), Ok(Some(_)));
                    prop_assert!(!(same && taken));
                }
                slot.widen("x").unwrap();
                slot.release(Predecessor::Clean);
            }
        }
        if let Ok(member) = all.member() {
            for number in 0..8 {
                let _ = member.change(|changing| changing.forget(number, &*member));
            }
        }
        let _ = all.inspect();
        #[cfg(feature = "cli")]
        let _ = super::super::checkup::examine(dir.path());
        drop(all);
        if bytes.len() > 100 {
            // What is left of it begins a new one.
            change_boot(dir.path());
            let _ = try_open(dir.path()).map(|all| all.inspect());
        }
    }
}

// ---- what a doctor finds -----------------------------------------------------------------------

#[cfg(feature = "cli")]
mod found_by_a_doctor {
    use super::{
        super::super::{checkup, dir::report},
        *,
    };

    fn findings(path: &Path, level: report::Level) -> Vec<String> {
        let found = checkup::examine(path).unwrap();
        found.into_iter().filter(|found| found.level == level).map(|found| found.text).collect()
    }

    fn damage(path: &Path) -> Vec<String> {
        findings(path, report::Level::Damage)
    }

    #[test]
    fn words_that_no_lock_wrote() {
        let dir = directory();
        let all = open(dir.path());
        let [_, slot] = ["a", "b"].map(|text| all.slot(&name(text)).unwrap());
        let shared = &slot.places.so_far().unwrap().get().slot;
        for (word, words) in
            [(1 << 63, "no lock wrote"), (1 << 15, "no lock wrote"), (7 << 16, "presence")]
        {
            shared.word.store(word, Relaxed);
            let found = damage(dir.path());
            assert!(found.len() == 1 && found[0].contains("\"b\""), "{found:?}");
            assert!(found[0].contains(words) && found[0].contains("remove it"), "{found:?}");
        }
        shared.word.store(0, Relaxed);
        shared.token.store(1 << 63, Relaxed);
        let found = damage(dir.path());
        assert!(found.len() == 1 && found[0].contains("is no token"), "{found:?}");
        shared.token.store(1, Relaxed);
        assert_eq!(damage(dir.path()), Vec::<String>::new());
        let member = member(&all);
        header(&member).structure.word.store(9 << 16, Relaxed);
        assert!(damage(dir.path())[0].contains("the lock of its own changes"));
    }

    #[test]
    fn names_that_are_not_found_or_stand_twice() {
        let dir = directory();
        let all = open(dir.path());
        let [a, b] = ["a", "b"].map(|text| all.slot(&name(text)).unwrap());
        let member = member(&all);
        let hash = member.table.hash(&name("a"));
        let head = member.table.head(hash & (member.table.chains().unwrap() - 1)).unwrap();
        let first = head.swap(0, Relaxed);
        let found = damage(dir.path());
        assert!(found.iter().any(|text| text.contains("\"a\"") && text.contains("process looks")));
        head.store(first, Relaxed);
        let [a, b] = [&a, &b].map(|slot| &slot.places.so_far().unwrap().get().slot);
        b.name_offset.store(a.name_offset.load(Relaxed), Relaxed);
        let found = damage(dir.path());
        assert!(found.len() == 1 && found[0].contains("in two slots"), "{found:?}");
    }

    /// A process that may only be in the middle of a change is not accused.
    #[test]
    fn changes_that_a_process_died_in_or_is_stopped_in() {
        for step in
            [Step::EnterIntended, Step::EnterReserved, Step::EnterFilled, Step::ForgetGeneration]
        {
            let dir = directory();
            drop(slot(dir.path(), "old"));
            let mut helper = Helper::start(dir.path());
            assert_eq!(helper.ask("member"), "done");
            assert_eq!(helper.ask(&format!("stop-at {step:?}")), "done");
            helper.say(way_to(step).unwrap());
            helper.wait_until_stopped();
            let told = |text: &String| text.contains("in the middle of a change");
            assert_eq!(damage(dir.path()), Vec::<String>::new(), "{step:?}");
            assert!(!findings(dir.path(), report::Level::Note).iter().any(told), "it lives");
            helper.kill();
            assert_eq!(damage(dir.path()), Vec::<String>::new(), "{step:?}");
            assert!(findings(dir.path(), report::Level::Note).iter().any(told), "{step:?}");
            drop(slot(dir.path(), "next"));
            assert!(!findings(dir.path(), report::Level::Note).iter().any(told), "{step:?}");
        }
    }

    #[test]
    fn nothing_while_others_enter_and_forget_names() {
        let dir = directory();
        header(&member(&open(dir.path()))).names_max.store(40, Relaxed);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let enter = || {
                let all = open(dir.path());
                for number in (0..).take_while(|_| !done.load(Relaxed)) {
                    let slot = all.slot(&name(&format!("n{number}"))).unwrap();
                    take(&slot);
                    slot.release(Predecessor::Clean);
                }
            };
            let others = [(); 2].map(|()| scope.spawn(enter));
            let found: Vec<_> = (0..50).flat_map(|_| damage(dir.path())).collect();
            done.store(true, Relaxed);
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(found, Vec::<String>::new());
        });
    }

    #[test]
    fn a_table_of_another_boot() {
        let dir = directory();
        drop(slot(dir.path(), "a"));
        change_boot(dir.path());
        let found = findings(dir.path(), report::Level::Note);
        assert!(found.iter().any(|text| text.contains("another boot")), "{found:?}");
        assert_eq!(damage(dir.path()), Vec::<String>::new());
    }
}

// ---- space and rights --------------------------------------------------------------------------

/// mongo-c-driver#1244: a full disk under a mapping is SIGBUS.
#[test]
fn a_full_disk_is_an_error_at_build_and_costs_no_holder_its_lock() {
    let Some(mount) = Mount::tmpfs("size=200k") else { return };
    let path = mount.0.path();
    let all = open(path);
    let busy: Vec<_> = (0..20).map(|n| all.slot(&name(&format!("busy {n}"))).unwrap()).collect();
    busy.iter().for_each(|slot| drop(try_take(slot).unwrap()));
    let mut keep = Vec::new();
    let error = (0..100_000).find_map(|number| {
        let slot = match all.slot(&name(&format!("{number:0200}"))) {
            Ok(slot) => slot,
            Err(error) => return Some(error),
        };
        // Held, so that it cannot be forgotten.
        try_take(&slot).unwrap();
        keep.push(slot);
        None
    });
    let error = error.expect("a full disk");
    assert_eq!(error.kind(), LockErrorKind::Io, "{error}");
    assert!(error.to_string().contains("make room"), "{error}");
    for slot in &busy {
        slot.widen("a process").unwrap();
        slot.release(Predecessor::Clean);
        assert!(try_take(slot).is_some());
    }
    // Names that are idle make room.
    keep.iter().for_each(|slot| slot.release(Predecessor::Clean));
    drop(keep.split_off(1));
    take(&all.slot(&name("new")).unwrap());
    let error = try_open(path).unwrap().slot(&name("a")).err();
    assert!(error.is_none_or(|error| error.kind() == LockErrorKind::Io), "no room for presences");
}

/// What was reserved before is granted as long as it lasts; beyond it nothing is, and nothing is
/// lost.
#[test]
fn a_full_disk_while_the_reserve_is_raised_costs_no_token_and_no_lock() {
    let Some(mount) = Mount::tmpfs("size=600k") else { return };
    let path = mount.0.path();
    let (all, other) = (open(path), open(path));
    let [one, two] = [&all, &other].map(|all| all.slot(&name("a")).unwrap());
    let filler = path.join("filler");
    let fill = || {
        let mut file = File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    };
    fill();
    // Over half of the reserve is used up: it is to be raised, and cannot be, which can wait.
    let last = reserve(path);
    let taken = one.try_take(token(last - 2)).unwrap().unwrap();
    assert_eq!(taken.token, token(last - 1));
    one.release(Predecessor::Panicked);
    assert_eq!(two.try_take(Token::ZERO).unwrap().unwrap().token, token(last));
    two.release(Predecessor::Panicked);
    for slot in [&one, &two] {
        let error = slot.try_take(Token::ZERO).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Io, "{error}");
        assert!(error.to_string().contains("make room"), "{error}");
        assert_eq!(error.name(), Some("a"));
    }
    assert_eq!(reserve(path), last, "the old line is whole");
    // A child that is just being started may have it open yet: its room is freed, not only its name.
    File::create(&filler).unwrap();
    fs::remove_file(&filler).unwrap();
    // Free, as it was left, and above every token.
    let taken = two.try_take(Token::ZERO).unwrap().unwrap();
    assert_eq!((taken.token, taken.predecessor), (token(last + 1), Predecessor::Panicked));
    assert!(reserve(path) > last);
}

/// fs4's `allocate` can return `Ok` without having allocated; a file that is too short is found.
#[test]
fn space_is_really_there_for_every_part() {
    let dir = directory();
    let all = member(&open(dir.path()));
    for number in 0..3_000 {
        all.find(&name(&format!("n{number}"))).unwrap();
        let found = fs::metadata(dir.path().join("table")).unwrap();
        assert!(found.blocks() * 512 >= found.len(), "sparse at {number}");
    }
}

#[test]
fn files_are_for_the_users_of_the_directory() {
    for (mode, wanted) in [(0o770, 0o660), (0o700, 0o600), (0o1777, 0o666), (0o2775, 0o664)] {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
        let mut helper = Helper::start_first(dir.path(), EngineKind::Table);
        helper.ask("umask");
        assert_eq!(helper.ask("slot a"), "done");
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for file in ["format", "table", "tokens"] {
            assert_eq!(mode_of(&dir.path().join(file)), wanted, "{file}");
        }
        assert_eq!(mode_of(&dir.path().join("presence")), mode);
        let presence = presences(dir.path()).into_iter().next().unwrap();
        assert_eq!(mode_of(&presences_path(dir.path(), &presence)), wanted);
    }
}

#[test]
fn members_of_a_group_share_locks_and_others_may_look_if_the_directory_lets_them() {
    let dir = tempfile::tempdir().unwrap();
    if fs::metadata(dir.path()).unwrap().uid() != 0 {
        return eprintln!("SKIPPED: only root can become another user");
    }
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let one = slot(dir.path(), "a");
    try_take(&one).unwrap();
    let mut other = Helper::start_as(dir.path(), 65534, 65534);
    assert_eq!(other.ask("slot a"), "done");
    assert_eq!(other.ask("try"), "busy");
    one.release(Predecessor::Clean);
    assert_eq!(other.ask("try"), "taken 2 clean");
    other.kill();
    assert_eq!(take(&one).predecessor, Predecessor::Died);
    one.release(Predecessor::Clean);

    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let one = slot(dir.path(), "a");
    try_take(&one).unwrap();
    let mut other = Helper::start_as(dir.path(), 65534, 65534);
    let error = other.ask("slot a");
    assert!(error.starts_with("error Refused") && error.contains("change owner"), "{error}");
    assert_eq!(other.ask("survey a"), "held 1");
}

// ---- what people are told ----------------------------------------------------------------------

#[test]
fn a_holder_is_timed_from_when_a_process_first_saw_it() {
    let dir = directory();
    let (one, two) = (slot(dir.path(), "a"), slot(dir.path(), "a"));
    try_take(&one).unwrap();
    assert!(status(dir.path(), "a").unwrap().holder.unwrap().held.is_some());
    let wait = Duration::from_millis(20);
    let error = two.take(Token::ZERO, clock::now() + wait).unwrap_err();
    assert!(error.holder().unwrap().held.unwrap() >= wait - Duration::from_millis(1));
    assert!(status(dir.path(), "a").unwrap().holder.unwrap().held.unwrap() >= wait / 2);
    one.release(Predecessor::Clean);
    try_take(&one).unwrap();
    assert_eq!(two.holder().unwrap().held, Some(Duration::ZERO), "another token");
}

/// buildbot#479, cqlite#3924: the order of waiting processes is chance.
#[test]
fn eight_processes_are_shown_in_order_and_served_in_order() {
    const PROCESSES: usize = 8;
    let dir = directory();
    let one = slot(dir.path(), "a");
    take(&one);
    let mut waiters: Vec<Helper> = Vec::new();
    for number in 0..PROCESSES {
        let mut waiter = Helper::start(dir.path());
        assert_eq!(waiter.ask("slot a"), "done");
        waiter.say("wait");
        waiters.push(waiter);
        while status(dir.path(), "a").unwrap().waiters.len() <= number {
            thread::yield_now();
        }
    }
    let shown = status(dir.path(), "a").unwrap().waiters;
    let pids = |waiters: &[Helper]| -> Vec<_> {
        waiters.iter().map(|waiter| Some(waiter.child.id())).collect()
    };
    assert_eq!(shown.iter().map(|waiter| waiter.process.pid).collect::<Vec<_>>(), pids(&waiters));
    assert!(shown.iter().rev().is_sorted_by_key(|waiter| waiter.waiting), "each with its time");
    // Each then has 100 ms to claim its turn.
    while status(dir.path(), "a").unwrap().waiters[PROCESSES - 1].waiting < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(10));
    }
    one.release(Predecessor::Clean);
    for (number, waiter) in waiters.iter_mut().enumerate() {
        assert_eq!(waiter.hear(), format!("taken {} clean", number + 2));
        assert_eq!(waiter.ask("release"), "done");
    }
}

#[test]
fn a_waiter_is_woken_at_the_end_of_the_process_that_it_waits_for() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    let all = open(dir.path());
    let (member, found) = (member(&all), looked_up(&member(&all), &name("a")).unwrap());
    let slot = member.table.slot_cell(found.number).unwrap();
    let word = Word::from_bits(slot.word.load(SeqCst));
    let bit = futex::bit(5);
    let owner = word.owner().unwrap();
    let hint = lock::PresenceView::hint_at_end(&*member, owner, &slot, bit);
    assert!(hint.is_some(), "its process is one of this pid namespace");
    let is_next_to_sleep = AtomicBool::new(false);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            is_next_to_sleep.store(true, SeqCst);
            // Only the hint wakes it.
            futex::sleep(&slot.word, word.low_half(), bit, LONG).unwrap();
        });
        while !is_next_to_sleep.load(SeqCst) {
            thread::yield_now();
        }
        holder.kill();
        sleeper.join().unwrap();
    });
}

/// The quiet way out is tried first, and leaves the hold as it was where a waiter stands.
#[test]
fn a_hold_that_could_not_be_left_quietly_is_left_all_the_same() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    let taken = take(&one);
    let mut waiter = Helper::start(dir.path());
    assert_eq!(waiter.ask("slot a"), "done");
    waiter.say("wait");
    while status(dir.path(), "a").unwrap().waiters.is_empty() {
        thread::yield_now();
    }
    let found = one.found(crate::fork::generation()).unwrap();
    found.release(taken.token);
    assert_eq!(waiter.hear(), "taken 2 clean");
}

/// A dead process's place among the waiters must not be believed for ever, nor its presence kept.
#[test]
fn waits_of_the_dead_are_swept_with_their_presences() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    take(&one);
    let mut waiter = Helper::start(dir.path());
    assert_eq!(waiter.ask("slot a"), "done");
    waiter.say("wait");
    while status(dir.path(), "a").unwrap().waiters.is_empty() {
        thread::yield_now();
    }
    waiter.kill();
    assert!(status(dir.path(), "a").unwrap().waiters.is_empty(), "the dead are not shown");
    let member = member(&one.directory);
    assert_eq!(member.table.shown_waits().len(), 1);
    header(&member).joined.store(0, SeqCst);
    let sweeper = open(dir.path());
    sweeper.member().unwrap();
    assert!(member.table.shown_waits().is_empty());
    assert_eq!(presences(dir.path()).len(), 2);
    one.release(Predecessor::Clean);
}

#[test]
fn the_next_holder_is_shown_as_waiting() {
    let dir = directory();
    let one = slot(dir.path(), "a");
    try_take(&one).unwrap();
    let mut waiter = Helper::start(dir.path());
    assert_eq!(waiter.ask("slot a"), "done");
    assert!(status(dir.path(), "a").unwrap().waiters.is_empty());
    waiter.say("wait");
    let found = loop {
        let mut found = status(dir.path(), "a").unwrap().waiters;
        if let Some(found) = found.pop() {
            break found;
        }
        thread::yield_now();
    };
    assert_eq!(found.process.pid, Some(waiter.child.id()));
    one.release(Predecessor::Clean);
    assert_eq!(waiter.hear(), "taken 2 clean");
    assert!(status(dir.path(), "a").unwrap().waiters.is_empty());
}

//! What is played, and that nothing is found in the sound protocol and each mistake is.

use std::{collections::BTreeSet, thread, time::Instant};

use parking_lot::Mutex;

use super::{
    super::{step::Step, word::Word},
    Job::{self, *},
    Play,
    explore::{PlayReport, explore, explore_up_to},
    mistakes::TableMistake,
};

/// What is yet to be played.
type ToPlay = Box<dyn FnOnce() -> PlayReport + Send>;

fn to_play<const N: usize>(plays: Titled<N>) -> impl Iterator<Item = ToPlay> {
    plays.into_iter().map(|(title, play)| Box::new(move || is_sound(title, &play)) as ToPlay)
}

/// Plays all of them, as many at a time as there are CPUs.
fn play_all(plays: impl Iterator<Item = ToPlay>) -> Vec<PlayReport> {
    let plays = Mutex::new(plays.collect::<Vec<_>>().into_iter());
    let play_on = || {
        let next = || plays.lock().next();
        std::iter::from_fn(next).map(|play| play()).collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play_on)).collect();
        players.into_iter().flat_map(|player| player.join().expect("the plays are sound")).collect()
    })
}

/// Nothing may be found.
fn is_sound<const N: usize>(title: &str, play: &Play<N>) -> PlayReport {
    let start = Instant::now();
    let report = explore(play);
    println!("{title}: {} worlds, {} steps, {:.1?}", report.worlds, report.moves, start.elapsed());
    if let Some((violation, story)) = &report.violation {
        panic!("{title}: it is not so that {violation}\n{story}");
    }
    report
}

const LOCK: &[Job] = &[Lock];

type Titled<const N: usize> = Vec<(&'static str, Play<N>)>;

/// From the smallest to the largest.
fn two() -> Titled<2> {
    vec![
        ("two lock and spin", Play { spins: 2, ..Play::new([LOCK, &[Lock, Lock]]) }),
        ("two tasks", Play::new([&[Await, Lock], &[Await]])),
        ("both sweep", Play::new([&[Lock, Sweep, Lock], &[Sweep, LockAndPanic, Sweep]])),
        ("both forget", Play::new([&[Lock, Forget, Lock], &[Forget, Lock, Forget]])),
        ("at_least", Play::new([&[Stay, Try], &[Lock, Sweep]])),
        ("one takes another id", Play::new([LOCK, &[Rename, Try]])),
        ("a task", Play::new([&[Lock, Lock], &[Await]])),
        ("one widens", Play::new([&[Lock, Try], &[Widen, Lock]])),
        ("two lock", Play::new([&[LockAndPanic, Lock], &[Lock, Try, Try]])),
    ]
}

/// Threads of two or three processes, from the smallest play to the largest.
fn three() -> Titled<3> {
    vec![
        ("a wrong verdict", lie()),
        ("three wait shortly", alive(Play { hunger: Some(false), ..three_lock() })),
        ("a holder dies", hungry(Play { deaths: 1, ..patient(Play::new([&[Try], LOCK, &[Try]])) })),
        ("two lock, one sweeps", Play { deaths: 1, ..Play::new([LOCK, LOCK, &[Sweep]]) }),
        ("two lock, one forgets", Play { deaths: 1, ..Play::new([LOCK, LOCK, &[Forget]]) }),
        ("one tries, two wait", hungry(alive(Play::new([&[Try], LOCK, LOCK])))),
        ("one waits elsewhere", elsewhere()),
        ("a sibling tries", patient(siblings([LOCK, &[Try], LOCK]))),
    ]
}

/// With readers.
fn shared_by_two() -> Titled<2> {
    vec![
        ("one reads, one writes", Play { give_ups: false, ..Play::new([&[TryRead], LOCK]) }),
        ("a reader and a writer", Play::new([&[Read], &[LockAndPanic, Lock]])),
        ("a writer becomes a reader", Play::new([&[Downgrade], &[Lock, TryRead]])),
        ("a reader becomes a writer", Play::new([&[Upgrade], &[Read, Try]])),
        ("two upgradable readers", Play::new([&[Upgrade, TryRead], &[Upgrade]])),
        ("one widens beside a reader", Play::new([&[Read, TryRead], &[WidenAlone]])),
    ]
}

/// Readers of two or three processes.
fn shared_by_three() -> Titled<3> {
    vec![
        ("two threads read, one writes", patient(siblings([&[Read], &[TryRead], LOCK]))),
        ("two processes read, one writes", patient(Play::new([&[Read], &[TryRead], LOCK]))),
        (
            "a reader dies between two",
            hungry(Play { deaths: 1, ..patient(Play::new([&[TryRead], &[Upgrade], &[Try]])) }),
        ),
    ]
}

/// With permits: two, but for one play.
fn permits_of_two() -> Titled<2> {
    vec![
        ("two try", Play::new([&[TryAcquire], &[TryAcquire]])),
        ("one of one permit", Play { limit: 1, ..Play::new([&[Acquire], &[Acquire]]) }),
        ("all of two permits", Play::new([&[AcquireAll], &[Acquire]])),
        ("a try beside one in front", Play::new([&[AcquireAll], &[AcquireAll, TryAcquire]])),
    ]
}

/// Permits of two or three processes.
fn permits_of_three() -> Titled<3> {
    vec![
        ("one is never returned", hungry(patient(siblings([&[TryForGood], &[TryAcquire], ONE])))),
        (
            "more tries than permits",
            hungry(patient(Play::new([&[TryAcquire], &[TryAcquire], ONE]))),
        ),
        (
            "a holder of permits dies",
            hungry(Play { deaths: 1, ..patient(Play::new([&[TryAcquire], &[TryAcquire], ONE])) }),
        ),
        (
            "one gives up in front of another",
            hungry(alive(Play::new([&[TryAcquire], &[AcquireAll], &[TryAcquire]]))),
        ),
    ]
}

const ONE: &[Job] = &[Acquire];

/// What takes minutes, cut where a record was used `USES` times.
fn long() -> (Titled<2>, Titled<3>) {
    let lock: &[Job] = &[Lock, LockAndPanic, Lock];
    let two = vec![
        ("two lock again", Play::new([&[Lock, Lock], &[Lock, LockAndPanic]])),
        ("two lock again and again", Play::new([lock, &[Lock, Lock]])),
        ("one tries again and again", Play::new([&[Lock, LockAndPanic], &[Try, Lock, Try]])),
        ("both with at_least", Play::new([&[Stay, Lock], &[Stay, Try]])),
        ("a task again", Play::new([&[Lock, Lock], &[Await, Try, Await]])),
        ("a reader and a writer again", Play::new([&[Read, Read], &[LockAndPanic, Lock]])),
        ("a writer becomes a reader again", Play::new([&[Downgrade, Read], &[Lock, TryRead]])),
        ("a reader becomes a writer again", Play::new([&[Upgrade, TryRead], &[Read, Try]])),
        ("two upgradable readers again", Play::new([&[Upgrade, Read], &[Upgrade, Lock]])),
        ("one takes another id again", Play::new([&[Lock, Lock], &[Rename, Try, Rename]])),
    ];
    let three = vec![
        ("a sibling waits in the turnstile", hungry(patient(siblings([LOCK, LOCK, LOCK])))),
        (
            "a sibling tries, and a death",
            hungry(Play { deaths: 1, ..siblings([LOCK, &[Try], LOCK]) }),
        ),
        ("three lock", hungry(patient(Play { one_bit: true, ..three_lock() }))),
        ("three wait, and give up", hungry(alive(three_lock()))),
        ("a task between two", hungry(patient(Play::new([&[Await], LOCK, LOCK])))),
        ("a pass comes late", hungry(patient(Play::new([&[Lock, LockAndPanic], LOCK, &[Try]])))),
    ];
    (two, three)
}

const USES: u32 = 4;

/// Each waiter has a record from the start.
fn hungry(play: Play<3>) -> Play<3> {
    Play { hunger: Some(true), ..play }
}

fn siblings(jobs: [&'static [Job]; 3]) -> Play<3> {
    Play { process: [0, 0, 1], ..Play::new(jobs) }
}

fn alive(play: Play<3>) -> Play<3> {
    Play { deaths: 0, ..play }
}

/// Without deaths, and no waiter gives up.
fn patient(play: Play<3>) -> Play<3> {
    Play { give_ups: false, ..alive(play) }
}

fn three_lock() -> Play<3> {
    Play::new([LOCK, LOCK, LOCK])
}

/// Records that are used by turns for this slot and another one, and are read in four steps.
fn elsewhere() -> Play<3> {
    let jobs: [&[Job]; 3] = [&[Lock, Lock], LOCK, &[Elsewhere]];
    hungry(patient(Play { fine: true, ..Play::new(jobs) }))
}

/// A living process is judged to be dead: what then must not happen is that its own threads
/// release each other's holds.
fn lie() -> Play<3> {
    Play {
        process: [0, 0, 1],
        deaths: 0,
        give_ups: false,
        lies: true,
        ..Play::new([&[Try], &[Try], &[Try]])
    }
}

#[test]
fn two_and_three_threads_in_every_order() {
    let start = Instant::now();
    let of_two = [two(), shared_by_two(), permits_of_two()].into_iter().flat_map(to_play);
    let of_three = [three(), shared_by_three(), permits_of_three()].into_iter().flat_map(to_play);
    let reports = play_all(of_two.chain(of_three));
    let worlds: usize = reports.iter().map(|report| report.worlds).sum();
    println!("{worlds} worlds in {:.1?}", start.elapsed());

    // The model met every row of the word's table, and no other.
    let rows: BTreeSet<_> = reports.iter().flat_map(|report| &report.rows).copied().collect();
    assert_eq!(rows, Word::rows());
    let made: BTreeSet<_> = reports.iter().flat_map(|report| &report.steps).copied().collect();
    let machines = Step::ALL.iter().filter(|step| **step <= Step::RetireBegun);
    let unmade: Vec<_> = machines.filter(|step| !made.contains(step)).collect();
    let outside = [
        Step::EnlistRaised,
        Step::EnlistTaken,
        Step::TakeEnd,
        Step::TakeEntered,
        Step::LeaveEnd,
        Step::ReapEnd,
        Step::ReadEnd,
        Step::UnreadEnd,
        Step::DrainEnd,
        Step::RetireBegun,
    ];
    assert_eq!(unmade, outside.iter().collect::<Vec<_>>(), "the machines' steps are all made");
}

/// `cargo test --release --features testing --lib table::model -- --ignored --nocapture`: gigabytes.
#[test]
#[ignore = "takes minutes, and gigabytes"]
fn more_and_longer_plays_in_every_order() {
    let (two, three) = long();
    for (title, play) in two {
        is_sound(title, &Play { uses_max: USES, ..play });
    }
    for (title, play) in three {
        is_sound(title, &Play { uses_max: USES, ..play });
    }
}

/// The play that shows each mistake in the fewest worlds, where it is looked for first. One that
/// stands nowhere is looked for in all plays, from the smallest to the largest.
#[rustfmt::skip]
const SHOWN_BY: &[(&str, &[TableMistake])] = {
    use TableMistake::*;
    &[
        ("two lock and spin", &[GivingUpKeepsTheRecord, GivingUpKeepsTheReservation, ReservationsNeverLapse, PassedOverWithoutAMark, TransferToTheWaiter, RecordsAreNotTold, BlindRecovery, StoppedCountsAsDead, RecoveriesTellNothing, UnusedIsGivenBackClean]),
        ("two tasks", &[TasksAreWonFor]),
        ("both sweep", &[SweepersTellNothing]),
        ("at_least", &[LeavingForgetsAtLeast, RecoveryForgetsAtLeast]),
        ("one takes another id", &[SleepersDoNotMark, SleepersDoNotCompare, ReleasingWakesNone, AppointedAreNotWoken, EarlierUseIsBelieved, ReturnedAsBefore, NeverCleared, PresencesAreNotJudged, BlindRelease, RenamingForgetsSleepers]),
        ("one widens", &[WaitersTakenWithoutHungry, RecoveryOfAnotherWord, TakingNarrows]),
        ("two lock", &[ClearedAfterOneScan]),
        ("one gives up in front of another", &[GivingUpKeepsAPart]),
        ("a writer becomes a reader", &[DowngradeLetsGoFirst]),
        ("one widens beside a reader", &[WidenersDoNotDrain, ReadersOverlookWide, WideIsSetAfterTheGrant]),
        ("a reader becomes a writer", &[UpgradeStaysReadable]),
        ("a wrong verdict", &[TokenIsNotCompared, RecoveriesRaiseNoToken]),
        ("three wait shortly", &[GivingUpIsSilent]),
        ("a holder dies", &[RecoveryOutOfOrder]),
        ("one tries, two wait", &[AppointersDoNotLookAgain]),
        ("one waits elsewhere", &[PublishedBeforeFilledIn]),
    ]
};

/// A mistake may make a play endless: then it is to be found before so many worlds.
const WORLDS_MAX: usize = 620_000;

/// Each of these mistakes breaks what it may break, and nothing else, in one of the plays.
fn are_found(are: impl Fn(TableMistake) -> bool, two: fn() -> Titled<2>, three: fn() -> Titled<3>) {
    for (mistake, may_break) in TableMistake::ALL {
        let mistaken = mistake.expect("each is one");
        if !are(mistaken) {
            continue;
        }
        let start = Instant::now();
        let shown_by = SHOWN_BY.iter().find(|(_, mistakes)| mistakes.contains(&mistaken));
        let two = in_turn(two(), *mistake, shown_by);
        let found = two.or_else(|| in_turn(three(), *mistake, shown_by));
        let (title, report) = found.unwrap_or_else(|| panic!("{mistaken:?} is not found"));
        let (violation, story) = report.violation.expect("what was looked for");
        let (worlds, took) = (report.worlds, start.elapsed());
        println!(
            "{mistaken:?}: it is not so that {violation} ({title}, {worlds} worlds, {took:.1?})"
        );
        assert!(may_break.contains(&violation), "{mistaken:?} breaks {violation:?}:\n{story}");
    }
}

/// The first of the plays that shows the mistake: of all, or of the one that is named.
fn in_turn<const N: usize>(
    plays: Titled<N>,
    mistake: Option<TableMistake>,
    only: Option<&(&str, &[TableMistake])>,
) -> Option<(&'static str, PlayReport)> {
    plays
        .into_iter()
        .filter(|(title, _)| only.is_none_or(|(only, _)| only == title))
        .map(|(title, play)| {
            let play = Play { mistake, uses_max: USES, ..play };
            (title, explore_up_to(WORLDS_MAX, &play))
        })
        .find(|(_, report)| report.violation.is_some())
}

#[test]
fn every_planted_mistake_is_found() {
    are_found(|mistake| !mistake.is_of_sharing() && !mistake.is_of_permits(), two, three);
}

#[test]
fn every_planted_mistake_of_sharing_is_found() {
    are_found(TableMistake::is_of_sharing, shared_by_two, shared_by_three);
}

#[test]
fn every_planted_mistake_of_permits_is_found() {
    are_found(TableMistake::is_of_permits, permits_of_two, permits_of_three);
}

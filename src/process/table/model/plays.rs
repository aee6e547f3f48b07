//! What is played, and that nothing is found in the sound protocol and each mistake is.

use std::{collections::BTreeSet, time::Instant};

use super::{
    super::{step::Step, word::Word},
    Job::{self, *},
    Play,
    explore::{Report, explore},
    mistakes::Mistake,
};

/// Nothing may be found.
fn is_sound<const N: usize>(title: &str, play: &Play<N>) -> Report {
    let start = Instant::now();
    let report = explore(play);
    println!("{title}: {} worlds, {} steps, {:.1?}", report.worlds, report.moves, start.elapsed());
    if let Some((violation, story)) = &report.violation {
        panic!("{title}: it is not so that {violation}\n{story}");
    }
    report
}

const LOCK: &[Job] = &[Lock];

/// From the smallest to the largest.
fn two() -> Vec<(&'static str, Play<2>)> {
    let lock: &[Job] = &[Lock, LockAndPanic, Lock];
    vec![
        ("two lock and spin", Play { spins: 2, ..Play::new([LOCK, &[Lock, Lock]]) }),
        ("two tasks", Play::new([&[Await, Lock], &[Await]])),
        ("both sweep", Play::new([&[Lock, Sweep, Lock], &[Sweep, LockAndPanic, Sweep]])),
        ("both forget", Play::new([&[Lock, Forget, Lock], &[Forget, Lock, Forget]])),
        ("at_least", Play::new([&[Stay, Try], &[Lock, Sweep, Lock]])),
        ("one takes another id", Play::new([&[Lock, Lock], &[Rename, Try, Rename]])),
        ("a task", Play::new([&[Lock, Lock], &[Await, Try, Await]])),
        ("one widens", Play::new([&[Lock, Try, Lock], &[Widen, Lock]])),
        ("both with at_least", Play::new([&[Stay, Lock], &[Stay, Try]])),
        ("one tries", Play::new([lock, &[Try, Lock, Try]])),
        ("two lock", Play::new([lock, &[Lock, Lock]])),
    ]
}

/// Threads of two or three processes, from the smallest play to the largest.
fn three() -> Vec<(&'static str, Play<3>)> {
    let siblings = |jobs| Play { process: [0, 0, 1], ..Play::new(jobs) };
    let alive = |play| Play { deaths: 0, ..play };
    let stays = |play| Play { give_ups: false, ..alive(play) };
    vec![
        ("a wrong verdict", lie()),
        ("three wait shortly", alive(Play { hunger: Some(false), ..three_lock() })),
        ("three wait long", alive(Play { hunger: Some(true), ..three_lock() })),
        ("one waits elsewhere", elsewhere()),
        ("two lock, one sweeps", Play { deaths: 1, ..Play::new([LOCK, LOCK, &[Sweep]]) }),
        ("two lock, one forgets", Play { deaths: 1, ..Play::new([LOCK, LOCK, &[Forget]]) }),
        ("a pass comes late", stays(Play::new([&[Lock, LockAndPanic], LOCK, &[Try]]))),
        ("a sibling tries", siblings([LOCK, &[Try], LOCK])),
        ("a sibling waits in the turnstile", Play { deaths: 1, ..siblings([LOCK, LOCK, LOCK]) }),
        ("three lock", alive(Play { one_bit: true, ..three_lock() })),
    ]
}

fn three_lock() -> Play<3> {
    Play::new([LOCK, LOCK, LOCK])
}

/// Records that are used by turns for this slot and another one, and are read in four steps.
fn elsewhere() -> Play<3> {
    let jobs: [&[Job]; 3] = [&[Lock, Lock], LOCK, &[Elsewhere, Elsewhere]];
    Play { fine: true, deaths: 0, give_ups: false, ..Play::new(jobs) }
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
    let two = two().into_iter().map(|(title, play)| is_sound(title, &play));
    let three = three().into_iter().map(|(title, play)| is_sound(title, &play));
    let reports: Vec<Report> = two.chain(three).collect();
    let worlds: usize = reports.iter().map(|report| report.worlds).sum();
    println!("{worlds} worlds in {:.1?}", start.elapsed());

    // The model met every row of the word's table, and no other.
    let rows: BTreeSet<_> = reports.iter().flat_map(|report| &report.rows).copied().collect();
    assert_eq!(rows, Word::rows());
    let made: BTreeSet<_> = reports.iter().flat_map(|report| &report.steps).copied().collect();
    let machines = Step::ALL.iter().filter(|step| **step <= Step::RetireBegun);
    let unmade: Vec<_> = machines.filter(|step| !made.contains(step)).collect();
    let outside =
        [Step::TakeEnd, Step::TakeEntered, Step::LeaveEnd, Step::BuryEnd, Step::RetireBegun];
    assert_eq!(unmade, outside.iter().collect::<Vec<_>>(), "the machines' steps are all made");
}

#[test]
fn every_planted_mistake_is_found() {
    for (mistake, may_break) in Mistake::ALL {
        let mistake = *mistake;
        let start = Instant::now();
        let two = || two().into_iter().map(|(_, play)| explore(&Play { mistake, ..play }));
        let three = || three().into_iter().map(|(_, play)| explore(&Play { mistake, ..play }));
        let first = two().take(6).chain(three().take(6)).find_map(|report| report.violation);
        let found = first
            .or_else(|| two().skip(6).chain(three().skip(6)).find_map(|report| report.violation));
        let (violation, story) = found.unwrap_or_else(|| panic!("{mistake:?} is not found"));
        let mistaken = mistake.expect("each is one");
        println!("{mistaken:?}: it is not so that {violation} ({:.1?})", start.elapsed());
        assert!(may_break.contains(&violation), "{mistake:?} breaks {violation:?}:\n{story}");
    }
}

//! Real processes over one real directory, which kill and stop themselves at numbered steps, and
//! are killed and stopped at random moments by the test.
//!
//! A worker is this test binary, started again to run `worker` alone. It locks, by one thread and
//! by two, counts, enters names, forgets, sweeps, comes and goes, until it is ended. What it counts
//! is protected by nothing but the lock, and stands in a shared file (`Board`), so that the next
//! worker finds everything as the dead one left it. Checked throughout:
//!
//! - an increment is never lost, and never are two inside;
//! - every token is larger than the one before;
//! - the holder after one that died inside is told `Died`, any other how the last one left;
//! - no reader sees what a writer has half done, unless it is told of that writer's end;
//! - while one is stopped, wherever it is, others go on.
//!
//! Ends at numbered steps and at random are counted apart, by phase. So that those at random come
//! everywhere, half of them go where the fewest came so far, and each worker lingers at some step.
//!
//! Last, a planted false verdict of death makes all that fail.
//!
//! Short in `cargo test`; for as many seconds as one likes:
//! `TIERLOCK_KILLS_S=300 cargo test --release --all-features --lib
//! random_kills_and_stops_for_long -- --ignored --nocapture`

mod board;
mod crew;
mod worker;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rustix::process::Signal;

use super::step::Step;

use crew::{Crew, Plan};
pub(super) use worker::is_lied_to;

/// How the random part ends.
const SHORT: Duration = Duration::from_secs(2);
/// The variable that says how many seconds the long form takes.
const SECONDS: &str = "TIERLOCK_KILLS_S";

/// The long form of less would not come everywhere.
const LONG: Duration = Duration::from_secs(60);
/// How a worker is ended.
const ENDS: [Signal; 2] = [Signal::KILL, Signal::STOP];

/// What a worker was at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum WorkerPhase {
    Outside,
    Taking,
    Asleep,
    Inside,
    LettingGo,
    Sharing,
    ChangingItsWord,
    Entering,
    Forgetting,
    Growing,
    Reserving,
    ComingAndGoing,
    Sweeping,
}

impl WorkerPhase {
    const ALL: [WorkerPhase; 13] = [
        WorkerPhase::Outside,
        WorkerPhase::Taking,
        WorkerPhase::Asleep,
        WorkerPhase::Inside,
        WorkerPhase::LettingGo,
        WorkerPhase::Sharing,
        WorkerPhase::ChangingItsWord,
        WorkerPhase::Entering,
        WorkerPhase::Forgetting,
        WorkerPhase::Growing,
        WorkerPhase::Reserving,
        WorkerPhase::ComingAndGoing,
        WorkerPhase::Sweeping,
    ];

    /// The last step of each part, in their order.
    const PARTS: [(Step, WorkerPhase); 13] = [
        (Step::TakeEntered, WorkerPhase::Taking),
        (Step::LeaveEnd, WorkerPhase::LettingGo),
        (Step::ReapEnd, WorkerPhase::Sweeping),
        (Step::DrainEnd, WorkerPhase::Sharing),
        (Step::RenameSwap, WorkerPhase::ChangingItsWord),
        (Step::RetireBegun, WorkerPhase::Forgetting),
        (Step::TextPlaced, WorkerPhase::Entering),
        (Step::ShareLinked, WorkerPhase::Sharing),
        (Step::ForgetDone, WorkerPhase::Forgetting),
        (Step::PartedOne, WorkerPhase::Growing),
        (Step::ReserveKnown, WorkerPhase::Reserving),
        (Step::PresenceGone, WorkerPhase::ComingAndGoing),
        (Step::SweepForgotten, WorkerPhase::Sweeping),
    ];

    /// Where one is that came to this step last.
    fn of(step: Step) -> WorkerPhase {
        if matches!(step, Step::TakeSleep | Step::DrainSleep) {
            return WorkerPhase::Asleep;
        }
        let part = WorkerPhase::PARTS.iter().find(|(last, _)| step <= *last);
        part.expect("every step is in a part").1
    }
}

/// What became of the workers.
#[derive(Default)]
struct Tally {
    /// Workers that ended themselves where they were told to.
    at_steps: Ends,
    /// Workers that were ended wherever they were.
    at_random: Ends,
    increments: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.at_steps.add(&other.at_steps);
        self.at_random.add(&other.at_random);
        self.increments += other.increments;
    }

    fn print(&self, title: &str) {
        println!(
            "{title}: {}, {} increments",
            told(self.at_steps.all(), self.at_random.all()),
            self.increments
        );
        for phase in WorkerPhase::ALL {
            println!("  {phase:?}: {}", told(self.at_steps.of(phase), self.at_random.of(phase)));
        }
    }
}

fn told(at_steps: [u64; 2], at_random: [u64; 2]) -> String {
    let text = |[kills, stops]: [u64; 2]| format!("{kills} kills and {stops} stops");
    format!("{} at steps, {} at random", text(at_steps), text(at_random))
}

/// How often workers were killed and stopped, by what they were at.
#[derive(Default)]
struct Ends {
    kills: BTreeMap<WorkerPhase, u64>,
    stops: BTreeMap<WorkerPhase, u64>,
}

impl Ends {
    fn add(&mut self, other: &Ends) {
        for (own, others) in [(&mut self.kills, &other.kills), (&mut self.stops, &other.stops)] {
            others.iter().for_each(|(phase, count)| *own.entry(*phase).or_default() += count);
        }
    }

    /// By [`ENDS`], of this phase.
    fn of(&self, phase: WorkerPhase) -> [u64; 2] {
        [&self.kills, &self.stops].map(|ends| ends.get(&phase).copied().unwrap_or_default())
    }

    /// By [`ENDS`], of all phases.
    fn all(&self) -> [u64; 2] {
        [&self.kills, &self.stops].map(|ends| ends.values().sum())
    }
}

/// Every step, as one to be killed at and as one to be stopped at.
fn every_step() -> VecDeque<Plan> {
    ENDS.into_iter()
        .flat_map(|end| Step::ALL.iter().map(move |step| Plan { step: *step, end }))
        .collect()
}

#[test]
fn a_worker_killed_or_stopped_at_any_step_costs_no_count_and_no_token() {
    let mut crew = Crew::new(None);
    crew.carry_out(every_step());
    crew.end_at_random_for(SHORT);
    let tally = crew.finish().unwrap_or_else(|violations| panic!("{violations}"));
    tally.print("at every step, and at random for a while");
    let at_steps =
        |phase: &WorkerPhase| Step::ALL.iter().any(|step| WorkerPhase::of(*step) == *phase);
    for phase in WorkerPhase::ALL.into_iter().filter(at_steps) {
        assert!(!tally.at_steps.of(phase).contains(&0), "no worker ended {phase:?}");
    }
    // The other phases are too short to be come to in so short a time.
    for phase in [
        WorkerPhase::Outside,
        WorkerPhase::Taking,
        WorkerPhase::Asleep,
        WorkerPhase::Inside,
        WorkerPhase::LettingGo,
    ] {
        assert_ne!(tally.at_random.of(phase)[0], 0, "no worker was killed at random {phase:?}");
    }
    for phase in [WorkerPhase::Taking, WorkerPhase::Asleep, WorkerPhase::Inside] {
        assert_ne!(tally.at_random.of(phase)[1], 0, "no worker was stopped at random {phase:?}");
    }
    assert!(tally.at_steps.all().iter().sum::<u64>() >= 2 * Step::ALL.len() as u64);
}

#[test]
#[ignore = "takes as long as it is told"]
fn random_kills_and_stops_for_long() {
    let seconds = std::env::var(SECONDS).map_or(LONG.as_secs(), |seconds| seconds.parse().unwrap());
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let mut all = Tally::default();
    // A directory after the other, so that each one grows.
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        let mut crew = Crew::new(None);
        crew.carry_out(every_step());
        crew.end_at_random_for(left.min(Duration::from_secs(30)));
        let tally = crew.finish().unwrap_or_else(|violations| panic!("{violations}"));
        all.add(&tally);
    }
    all.print("for long");
    if seconds >= LONG.as_secs() {
        for phase in WorkerPhase::ALL {
            assert!(!all.at_random.of(phase).contains(&0), "no worker ended at random {phase:?}");
        }
    }
}

/// The checks can fail: one false verdict of death in so many lets two in.
#[test]
fn a_false_verdict_of_death_is_found_out() {
    let mut crew = Crew::new(Some(20));
    crew.end_at_random_for(Duration::from_secs(60));
    let violations = crew.finish().err().expect("no worker noticed that the living were robbed");
    println!("as it must be: {}", violations.lines().next().unwrap_or_default());
}

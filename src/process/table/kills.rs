//! Real processes over one real directory, which kill and stop themselves at numbered steps, and
//! are killed and stopped at random moments by the test.
//!
//! A worker is this test binary, started again to run `worker` alone. It locks, counts, enters
//! names, forgets, sweeps, comes and goes, until it is ended. What it counts is protected by
//! nothing but the lock, and stands in a shared file (`Board`), so that whoever comes next finds
//! everything as the dead left it. Checked throughout:
//!
//! - an increment is never lost, and never are two inside;
//! - every token is larger than the one before;
//! - who comes after one that died inside is told `Died`, and otherwise how the last one left;
//! - while one is stopped, wherever it is, others go on;
//! - nobody comes in to a lock that was broken before its holder is told.
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

/// What a worker was at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Outside,
    Taking,
    Asleep,
    Inside,
    LettingGo,
    ChangingItsWord,
    Entering,
    Forgetting,
    Breaking,
    Growing,
    Reserving,
    ComingAndGoing,
    Sweeping,
}

impl Phase {
    const ALL: [Phase; 13] = [
        Phase::Outside,
        Phase::Taking,
        Phase::Asleep,
        Phase::Inside,
        Phase::LettingGo,
        Phase::ChangingItsWord,
        Phase::Entering,
        Phase::Forgetting,
        Phase::Breaking,
        Phase::Growing,
        Phase::Reserving,
        Phase::ComingAndGoing,
        Phase::Sweeping,
    ];

    /// The last step of each part, in their order.
    const PARTS: [(Step, Phase); 13] = [
        (Step::TakeEntered, Phase::Taking),
        (Step::LeaveEnd, Phase::LettingGo),
        (Step::BuryEnd, Phase::Sweeping),
        (Step::RenameSwap, Phase::ChangingItsWord),
        (Step::MoveBack, Phase::Breaking),
        (Step::RetireBegun, Phase::Forgetting),
        (Step::TextPlaced, Phase::Entering),
        (Step::ForgetDone, Phase::Forgetting),
        (Step::FreeDone, Phase::Breaking),
        (Step::PartedOne, Phase::Growing),
        (Step::ReserveKnown, Phase::Reserving),
        (Step::PresenceGone, Phase::ComingAndGoing),
        (Step::SweepForgotten, Phase::Sweeping),
    ];

    /// Where one is that came to this step last.
    fn of(step: Step) -> Phase {
        if step == Step::TakeSleep {
            return Phase::Asleep;
        }
        let part = Phase::PARTS.iter().find(|(last, _)| step <= *last);
        part.expect("every step is in a part").1
    }
}

/// What became of the workers.
#[derive(Default)]
struct Tally {
    kills: BTreeMap<Phase, u64>,
    stops: BTreeMap<Phase, u64>,
    at_steps: u64,
    increments: u64,
}

impl Tally {
    fn kills(&self) -> u64 {
        self.kills.values().sum()
    }

    fn print(&self, title: &str) {
        let stops: u64 = self.stops.values().sum();
        println!(
            "{title}: {} kills, {stops} stops ({} of both at steps), {} increments",
            self.kills(),
            self.at_steps,
            self.increments
        );
        for phase in Phase::ALL {
            let count = |of: &BTreeMap<Phase, u64>| of.get(&phase).copied().unwrap_or_default();
            println!("  {phase:?}: {} kills, {} stops", count(&self.kills), count(&self.stops));
        }
    }
}

/// Every step, as one to be killed at and as one to be stopped at.
fn every_step() -> VecDeque<Plan> {
    let ends = [Signal::KILL, Signal::STOP];
    ends.into_iter()
        .flat_map(|end| Step::ALL.iter().map(move |step| Plan { step: *step, end }))
        .collect()
}

#[test]
fn whoever_is_killed_or_stopped_at_any_step_costs_nobody_a_count_or_a_token() {
    let mut crew = Crew::new(None);
    crew.carry_out(every_step());
    crew.end_at_random_for(SHORT);
    let tally = crew.dismiss().unwrap_or_else(|violations| panic!("{violations}"));
    tally.print("at every step, and at random for a while");
    for phase in Phase::ALL {
        assert!(tally.kills.contains_key(&phase), "nobody was killed {phase:?}");
    }
    assert!(tally.at_steps >= 2 * Step::ALL.len() as u64);
}

#[test]
#[ignore = "takes as long as it is told"]
fn random_kills_and_stops_for_long() {
    let seconds = std::env::var(SECONDS).map_or(60, |seconds| seconds.parse().unwrap());
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let mut all = Tally::default();
    // A directory after the other, so that each one grows.
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        let mut crew = Crew::new(None);
        crew.carry_out(every_step());
        crew.end_at_random_for(left.min(Duration::from_secs(30)));
        let tally = crew.dismiss().unwrap_or_else(|violations| panic!("{violations}"));
        all.at_steps += tally.at_steps;
        all.increments += tally.increments;
        tally
            .kills
            .into_iter()
            .for_each(|(phase, count)| *all.kills.entry(phase).or_default() += count);
        tally
            .stops
            .into_iter()
            .for_each(|(phase, count)| *all.stops.entry(phase).or_default() += count);
    }
    all.print("for long");
}

/// The checks can fail: one false verdict of death in so many lets two in.
#[test]
fn a_false_verdict_of_death_is_found_out() {
    let mut crew = Crew::new(Some(20));
    crew.end_at_random_for(Duration::from_secs(60));
    let violations = crew.dismiss().err().expect("nobody noticed that the living were robbed");
    println!("as it must be: {}", violations.lines().next().unwrap_or_default());
}

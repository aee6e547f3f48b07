//! What it costs to observe: a leader with metrics, log and scrapes beside one without, and clients with the
//! library's spans beside one that is built without them.
//!
//! Each subject is a pair of a leader and a client of its own, and works in short slices, in turn with the others:
//! so what else the machine does meets all alike. A process is faster or slower for as long as it lives, by where
//! its memory came to be: so all pairs are started anew, many times, and a ratio has the bounds that another run's
//! would be within.
//!
//! A pair has **one processor**, which leader and client share: it is never idle, so the rate is what a lock costs
//! both, and no more. On several processors the rate is first of all what the kernel makes of three threads that
//! wake each other: whether two of them share a processor stays so for seconds, and moves the rate of one and the
//! same pair by a third. Those rates are shown too, with their bounds, and decide nothing.
//!
//! Two pairs are plain, and how far they seem to differ is the measurement's fault. And in one a loss is planted,
//! which has to be found. If either fails, nothing is decided.
//!
//! What is off costs nothing by construction, but for spans that are built and not wanted: without `--http` a leader has no counters to add to, and without
//! the feature `tracing` the library has no code for spans.
//!
//! | file | owns |
//! |---|---|
//! | `pairs` | the programs, and a leader and its client that work for a slice |
//! | `estimate` | a ratio and its bounds, from those of many starts |
//! | `counted` | the same in instructions, which have no bounds |

mod counted;
mod estimate;
mod pairs;

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;
use tierlock::Scope;

use crate::{
    bench::{failure::Result, human, machine::MachineInfo, progress::Progress, stats::median},
    budget::{Target, Unit, Verdict},
    comparison,
    peers::field::Field,
};
use counted::Counted;
use estimate::Estimate;
use pairs::{Pair, Programs, Slice};

#[derive(Serialize)]
pub(crate) struct Observing {
    machine: MachineInfo,
    rows: Vec<ObservedRow>,
    instructions: Vec<Counted>,
    budgets: Vec<Verdict>,
}

/// What was measured of a subject; its ratios are over the plain ones' of the same rounds.
#[derive(Clone, Serialize)]
struct ObservedRow {
    /// Which callers: `connections` or `tasks`.
    callers: &'static str,
    place: Place,
    subject: &'static str,
    ops_per_s: f64,
    rate: Estimate,
    /// Processor time for each lock.
    client: Estimate,
    leader: Estimate,
}

/// The kinds of callers, as `caller` has them.
const CALLERS: [&str; 2] = ["connections", "tasks"];

/// Where a leader and its client run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    OneProcessor,
    AllProcessors,
}

/// What a leader and its client have, and what that is called.
struct Subject {
    text: &'static str,
    is_leader_observed: bool,
    spans: Spans,
    /// What part of its time each lock takes besides.
    planted: f64,
    budgets: Option<ObservedBudgets>,
}

/// What a subject has to leave as it is. What is on is held against a leader's throughput, of which its
/// processor time for each lock is the inverse: clients are elsewhere, and what spans cost them is theirs. What
/// is off may cost neither of them anything: of that it is the rate of both.
#[derive(Clone, Copy)]
struct ObservedBudgets {
    /// In the order of [`CALLERS`].
    what: [&'static str; CALLERS.len()],
    kept: fn(&ObservedRow) -> Estimate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spans {
    NotBuilt,
    Unwanted,
    Wanted,
}

const fn plain(text: &'static str) -> Subject {
    let (is_leader_observed, planted) = (false, 0.0);
    Subject { text, is_leader_observed, spans: Spans::NotBuilt, planted, budgets: None }
}

/// Where among [`SUBJECTS`] the plain pair is that is compared with the first.
const AGAIN: usize = 1;
/// Where the planted loss is.
const PLANTED: usize = 2;

const PLAIN: &str = "nothing observed";

/// What is compared: two plain ones first.
const SUBJECTS: [Subject; 6] = [
    plain(PLAIN),
    plain("nothing observed, again"),
    Subject { planted: 0.05, ..plain("a loss of 5 %, planted") },
    Subject {
        is_leader_observed: true,
        budgets: Some(ObservedBudgets {
            what: ["leader observed, connections", "leader observed, tasks"],
            kept: |row| row.leader.inverse(),
        }),
        ..plain("leader: metrics, log")
    },
    Subject {
        spans: Spans::Unwanted,
        budgets: Some(ObservedBudgets {
            what: ["spans unwanted, connections", "spans unwanted, tasks"],
            kept: |row| row.rate,
        }),
        ..plain("client: spans, unwanted")
    },
    Subject {
        spans: Spans::Wanted,
        budgets: Some(ObservedBudgets {
            what: [
                "leader at clients with spans, connections",
                "leader at clients with spans, tasks",
            ],
            kept: |row| row.leader.inverse(),
        }),
        ..plain("client: spans, wanted")
    },
];

/// With fewer starts bounds say nothing.
const STARTS_LEAST: usize = 8;

/// What observing has to leave.
const LEAST: f64 = 0.97;
/// How far equal pairs may seem to be apart: half of what is to be found.
const EQUAL_WITHIN: f64 = 0.015;

/// Of each start.
const ROUNDS: usize = 6;
const SLICE: Duration = Duration::from_millis(60);
/// Before each slice, as long as a pair needs to be in its processor's caches again, and not counted.
const WARM_UP: Duration = Duration::from_millis(15);
/// Before the first.
const FIRST_WARM_UP: Duration = Duration::from_millis(100);
/// A pair's start and its end take so long.
const START: Duration = Duration::from_millis(150);
/// In each so many starts the metrics are read once: once in a second of a leader's work, which is fifteen times
/// as often as Prometheus does by default.
const STARTS_PER_SCRAPE: usize = 2;

/// Measures all of it, in so many seconds and the time to build what is observed and to count instructions.
pub(crate) fn run(seconds: f64) -> Result<Observing> {
    let mut field = Field::new()?;
    let progress = Progress::new(Duration::ZERO);
    progress.says("building the program, and a client with and without spans");
    let programs = Programs::build(&mut field)?;
    let of_pair = START + FIRST_WARM_UP + (WARM_UP + SLICE) * ROUNDS as u32;
    let starts = seconds / (of_pair * (CALLERS.len() * SUBJECTS.len()) as u32).as_secs_f64();
    let (mut rows, mut budgets) = (Vec::new(), Vec::new());
    // What decides has twice as many.
    for (place, part) in [(Place::OneProcessor, 2.0 / 3.0), (Place::AllProcessors, 1.0 / 3.0)] {
        for (kind, callers) in CALLERS.into_iter().enumerate() {
            let mut tallies = SUBJECTS.map(|_| Tally::default());
            let starts = (starts * part).max(1.0) as usize;
            for start in 0..starts {
                progress.says(&format!("{callers}, {}: start {start}", place.text()));
                OneStart::run(&mut field, &programs, callers, place, start)?.add_to(&mut tallies);
            }
            let row =
                |(subject, tally): (&Subject, &Tally)| tally.row(callers, place, subject.text);
            let of_callers: Vec<ObservedRow> = SUBJECTS.iter().zip(&tallies).map(row).collect();
            if place == Place::OneProcessor {
                budgets.extend(verdicts(&of_callers, kind, starts));
            }
            rows.extend(of_callers);
        }
    }
    let instructions = counted::count(&mut field, &programs, &progress)?;
    Ok(Observing { machine: MachineInfo::this(), rows, instructions, budgets })
}

/// Of all subjects, in their order, from so many starts.
fn verdicts(rows: &[ObservedRow], kind: usize, starts: usize) -> Vec<Verdict> {
    let with_budgets = SUBJECTS.iter().zip(rows);
    with_budgets
        .filter_map(|(subject, row)| {
            let ObservedBudgets { what, kept } = subject.budgets?;
            // Clients that are slower send fuller frames, so that less than all is lost of the rate.
            let is_found =
                rows[PLANTED].client.inverse().high < LEAST && rows[PLANTED].rate.high < 1.0;
            let is_sound = starts >= STARTS_LEAST
                && is_found
                && (kept(&rows[AGAIN]).value - 1.0).abs() <= EQUAL_WITHIN;
            Some(verdict(what[kind], kept(row), is_sound))
        })
        .collect()
}

/// Unknown if the target is within the bounds.
fn verdict(what: &'static str, kept: Estimate, is_sound: bool) -> Verdict {
    let met = match kept {
        _ if !is_sound => None,
        Estimate { low, .. } if low >= LEAST => Some(true),
        Estimate { high, .. } if high < LEAST => Some(false),
        _ => None,
    };
    Verdict { met, ..Verdict::of(what, Unit::Ratio, Target::AtLeast(LEAST), Some(kept.value)) }
}

/// What was measured of a subject: ratios over the plain ones', one of each start.
#[derive(Default)]
struct Tally {
    rates: Vec<f64>,
    clients: Vec<f64>,
    leaders: Vec<f64>,
    ops_per_s: Vec<f64>,
}

impl Tally {
    fn row(&self, callers: &'static str, place: Place, subject: &'static str) -> ObservedRow {
        ObservedRow {
            callers,
            place,
            subject,
            ops_per_s: median(&self.ops_per_s),
            rate: Estimate::of(&self.rates),
            client: Estimate::of(&self.clients),
            leader: Estimate::of(&self.leaders),
        }
    }
}

/// The slices of all subjects from one start to the end of its processes.
struct OneStart {
    slices: [Vec<Slice>; SUBJECTS.len()],
}

impl OneStart {
    fn run(
        field: &mut Field,
        programs: &Programs,
        callers: &str,
        place: Place,
        start: usize,
    ) -> Result<OneStart> {
        // Each is the first as often as any other, of those that start and of those that work; and of two each
        // is before the other as often as behind it, so that what changes evenly meets both alike.
        let in_turn = |round: usize| {
            (0..SUBJECTS.len()).map(move |at| {
                let at = if round.is_multiple_of(2) { at } else { SUBJECTS.len() - 1 - at };
                (start + at) % SUBJECTS.len()
            })
        };
        let mut pairs = [const { None }; SUBJECTS.len()];
        for subject in in_turn(0) {
            let subject_started = &SUBJECTS[subject];
            let mut pair = Pair::start(field, programs, callers, place, subject_started)?;
            pair.work(FIRST_WARM_UP)?;
            if subject_started.planted > 0.0 {
                pair.plant(subject_started.planted, SLICE)?;
            }
            pairs[subject] = Some(pair);
        }
        let mut slices = [const { Vec::new() }; SUBJECTS.len()];
        for round in 0..ROUNDS {
            let is_scraped = start.is_multiple_of(STARTS_PER_SCRAPE) && round == ROUNDS / 2;
            for subject in in_turn(round) {
                let pair = pairs[subject].as_mut().expect("all have started");
                pair.work(WARM_UP)?;
                slices[subject].push(match is_scraped {
                    true => pair.work_and_read_metrics(SLICE)?,
                    false => pair.work(SLICE)?,
                });
            }
        }
        Ok(OneStart { slices })
    }

    fn add_to(&self, tallies: &mut [Tally; SUBJECTS.len()]) {
        for (subject, tally) in tallies.iter_mut().enumerate() {
            tally.rates.push(self.ratio(subject, |slice| slice.ops_per_s));
            tally.clients.push(self.ratio(subject, |slice| slice.client));
            tally.leaders.push(self.ratio(subject, |slice| slice.leader));
            tally.ops_per_s.extend(self.slices[subject].iter().map(|slice| slice.ops_per_s));
        }
    }

    /// The mean of all rounds: over that of the plain ones, and of the second plain one over the first.
    fn ratio(&self, subject: usize, figure: fn(&Slice) -> f64) -> f64 {
        let log = |subject: usize| {
            let logs = self.slices[subject].iter().map(|slice| figure(slice).ln());
            logs.sum::<f64>() / ROUNDS as f64
        };
        let (first, again) = (log(0), log(AGAIN));
        let plain = if subject <= AGAIN { first } else { (first + again) / 2.0 };
        (log(subject) - plain).exp()
    }
}

impl Place {
    const fn text(self) -> &'static str {
        match self {
            Place::OneProcessor => "one processor",
            Place::AllProcessors => "all processors",
        }
    }
}

impl Observing {
    pub(crate) fn text(&self) -> String {
        let mut text = self.machine.heading();
        for place in [Place::OneProcessor, Place::AllProcessors] {
            let on = format!("On {}", place.text());
            let _ = writeln!(
                text,
                "{on:<14}{:<26}{:>11}{:>22}{:>22}{:>22}",
                "", "per second", "rate", "client's time", "leader's time"
            );
            for row in self.rows.iter().filter(|row| row.place == place) {
                let ObservedRow { callers, subject, ops_per_s, rate, client, leader, .. } = row;
                let ops = human::count(*ops_per_s);
                let [rate, client, leader] = [rate, client, leader].map(|estimate| estimate.text());
                let _ = writeln!(
                    text,
                    "{callers:<14}{subject:<26}{ops:>11}{rate:>22}{client:>22}{leader:>22}"
                );
            }
            text += "\n";
        }
        text += "Over what nothing observes; in brackets what another run would find in 19 of 20 cases. \
                 Time: the processor's, for each lock.\nWhat decides is one processor: of what is on the \
                 inverse of the leader's time, which is its throughput; of spans\nunwanted the rate. \
                 Unknown is what has its target within its bounds, and all if equal pairs are more than\n\
                 0.015 apart, the planted loss is not found, or there were fewer than 8 starts.\n\n";
        text += &counted::text(&self.instructions);
        text += &comparison::budgets(&self.budgets);
        let _ = writeln!(text, "At {} scope; what is off costs nothing.", Scope::Host);
        text
    }
}

#[cfg(test)]
mod tests;

//! Groups: three or five members, each with a disk of its own, on a network that loses, repeats, delays and
//! cuts, one way or both. The members are the machines that production runs, and above each the reign that
//! production runs; what a reign appends is made up here.
//!
//! What holds at every step, whatever happens:
//!
//! - members that have applied the log up to the same place have the same state;
//! - what was answered as written is found by every reign that begins later; stamps and epochs rise from
//!   each answer to what is asked after it, and none comes twice;
//! - no reign is proven while the journal is in another;
//! - a disk has what it has confirmed, and one that was put back, and has less, gives no vote.
//!
//! And once nothing is broken any more, a reign is proven, its writes are answered, and every member
//! follows; no member leads on a low disk while another could, and none goes on with a disk that was put
//! back.

mod confirmed;
mod faults;
mod members;
#[cfg(feature = "mistakes")]
mod mistakes;
mod network;
mod put_back;
mod rules;
mod serving;

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tierlock::proto::group::{GroupFrame, MemberName, StoredGroup, WriteId};

pub(crate) use self::serving::GroupEvent;
use self::{
    members::GroupSeatInWorld, network::GroupNetwork, rules::GroupRules, serving::GroupAbove,
};
use crate::{
    clock::{MS, SECOND, Truth, shown},
    dice::Dice,
};

/// For so long something breaks, and for so long then all is to be well again.
const TROUBLED: Truth = 12 * SECOND;
const WELL: Truth = 8 * SECOND;

/// For how long a reign is believed, where nothing else is said.
const LASTS: Duration = Duration::from_millis(400);

/// One group, its network and its disks.
pub(crate) struct GroupWorld {
    seed: u64,
    telling: bool,
    dice: Dice,
    truth: Truth,
    steps: BTreeMap<(Truth, u64), GroupStep>,
    next_step: u64,
    seats: Vec<GroupSeatInWorld>,
    network: GroupNetwork,
    rules: GroupRules,
    tally: GroupTally,
    digest: u64,
    log_bytes_max: usize,
    /// For how long a reign is believed.
    lasts: Duration,
    /// The world with the leaders that have this group as their journal, if there is one.
    above: Option<GroupAbove>,
    /// Until then nothing else breaks.
    calm_until: Truth,
    /// Nothing breaks any more.
    is_well: bool,
    /// But that this member does not hear the others, or they do not hear it; or that it reaches only one of
    /// them, which then may have to follow a leader that others do not reach.
    cut_member: Option<(usize, bool)>,
}

enum GroupStep {
    Arrives { from: usize, to: usize, frame: Box<GroupFrame> },
    Stored { seat: usize, start: u32, write: WriteId },
    Wakes { seat: usize, start: u32 },
    Refused { seat: usize, start: u32, peer: usize },
    Starts { seat: usize },
    PutsBack { seat: usize },
    Exchanges { one: usize, other: usize },
    PutsDiskBack { leader: usize, seat: usize, before: Box<StoredGroup> },
    BecomesAnother { seat: usize, start: u32 },
    HasRoom { seat: usize },
    StepsAside { seat: usize, start: u32 },
    Trouble,
    Operator,
    Heals,
    CutForGood,
    Judged,
}

/// What worlds have seen.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct GroupTally {
    pub(crate) frames: u64,
    pub(crate) losses: u64,
    pub(crate) crashes: u64,
    pub(crate) writes_lost: u64,
    pub(crate) leads: u64,
    pub(crate) quiet: u64,
    pub(crate) reigns: u64,
    pub(crate) deposed: u64,
    pub(crate) appends: u64,
    pub(crate) replaced: u64,
    pub(crate) admitted: u64,
    pub(crate) strange_disks: u64,
    pub(crate) transfers: u64,
    pub(crate) snapshots: u64,
    pub(crate) put_back: u64,
    pub(crate) told_put_back: u64,
    pub(crate) lows: u64,
}

impl GroupTally {
    fn add(&mut self, other: &GroupTally) {
        let GroupTally {
            frames,
            losses,
            crashes,
            writes_lost,
            leads,
            quiet,
            reigns,
            deposed,
            appends,
            replaced,
            admitted,
            strange_disks,
            transfers,
            snapshots,
            put_back,
            told_put_back,
            lows,
        } = other;
        self.frames += frames;
        self.losses += losses;
        self.crashes += crashes;
        self.writes_lost += writes_lost;
        self.leads += leads;
        self.quiet += quiet;
        self.reigns += reigns;
        self.deposed += deposed;
        self.appends += appends;
        self.replaced += replaced;
        self.admitted += admitted;
        self.strange_disks += strange_disks;
        self.transfers += transfers;
        self.snapshots += snapshots;
        self.put_back += put_back;
        self.told_put_back += told_put_back;
        self.lows += lows;
    }
}

impl fmt::Display for GroupTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a world has come to.
pub(crate) struct GroupOutcome {
    pub(crate) tally: GroupTally,
    pub(crate) digest: u64,
    pub(crate) violation: Option<String>,
}

/// Tells what happens, if this seed is told.
macro_rules! tell {
    ($world:expr, $($text:tt)*) => {
        if $world.telling {
            println!("{:?} {}", crate::clock::shown($world.truth), format_args!($($text)*));
        }
    };
}
use tell;

impl GroupWorld {
    pub(crate) fn new(seed: u64, telling: bool) -> GroupWorld {
        let mut dice = Dice::new(seed);
        let count = if dice.percent(70) { 3 } else { 5 };
        let mut world = GroupWorld::of(seed, telling, dice, count);
        for seat in 0..count {
            let made = world.seat(count);
            world.seats.push(made);
            let at = world.dice.below(300 * MS);
            world.at(at, GroupStep::Starts { seat });
        }
        let first = world.dice.below(2 * SECOND);
        world.at(first, GroupStep::Trouble);
        world.at(500 * MS, GroupStep::Operator);
        world.at(TROUBLED, GroupStep::Heals);
        world.at(TROUBLED + WELL, GroupStep::Judged);
        world
    }

    /// One without members, and nothing to come.
    fn of(seed: u64, telling: bool, mut dice: Dice, count: usize) -> GroupWorld {
        let network = GroupNetwork::new(&mut dice, count);
        let mut world = GroupWorld {
            seed,
            telling,
            dice,
            truth: 0,
            steps: BTreeMap::new(),
            next_step: 0,
            seats: Vec::new(),
            network,
            rules: GroupRules::new(count),
            tally: GroupTally::default(),
            digest: 0,
            log_bytes_max: 0,
            lasts: LASTS,
            above: None,
            calm_until: 0,
            is_well: false,
            cut_member: None,
        };
        world.log_bytes_max = [2_000, 20_000, 256 * 1024][world.dice.below(3) as usize];
        world
    }

    pub(crate) fn run(mut self) -> GroupOutcome {
        while let Some(((truth, _), step)) = self.steps.pop_first() {
            self.truth = truth;
            let is_last = matches!(step, GroupStep::Judged);
            self.perform(step);
            if is_last || self.rules.violation().is_some() {
                break;
            }
        }
        let violation = self
            .rules
            .violation()
            .map(|text| format!("seed {} at {:?}: {text}", self.seed, shown(self.truth)));
        GroupOutcome { tally: self.tally, digest: self.digest, violation }
    }

    fn perform(&mut self, step: GroupStep) {
        match step {
            GroupStep::Arrives { from, to, frame } => self.arrives(from, to, *frame),
            GroupStep::Stored { seat, start, write } => self.stored(seat, start, write),
            GroupStep::Wakes { seat, start } => self.wakes(seat, start),
            GroupStep::Refused { seat, start, peer } => self.refused(seat, start, peer),
            GroupStep::Starts { seat } => self.starts(seat),
            GroupStep::PutsBack { seat } => self.puts_back(seat),
            GroupStep::Exchanges { one, other } => self.exchange(one, other),
            GroupStep::PutsDiskBack { leader, seat, before } => {
                self.put_disk_back(leader, seat, *before);
            }
            GroupStep::BecomesAnother { seat, start } => self.become_another(seat, start),
            GroupStep::HasRoom { seat } => self.has_room(seat),
            GroupStep::StepsAside { seat, start } => {
                if self.seats[seat].starts == start {
                    self.hand_over(seat);
                }
            }
            GroupStep::Trouble => self.trouble(),
            GroupStep::Operator => self.operate(),
            GroupStep::Heals => self.heal(),
            GroupStep::CutForGood => self.cut_for_good(),
            GroupStep::Judged => self.judge(),
        }
    }

    fn at(&mut self, truth: Truth, step: GroupStep) {
        self.next_step += 1;
        self.steps.insert((truth.max(self.truth), self.next_step), step);
    }

    fn after(&mut self, pause: Truth, step: GroupStep) {
        self.at(self.truth + pause, step);
    }

    fn note(&mut self, what: u64) {
        self.digest = (self.digest ^ what ^ self.truth).wrapping_mul(0x100_0000_01B3);
    }
}

/// The name of a seat's member.
fn name_of(seat: usize) -> MemberName {
    MemberName::new(["a", "b", "c", "d", "e"][seat])
}

/// The seat of a member.
fn seat_of(member: &MemberName) -> usize {
    usize::from(member.as_str().as_bytes()[0] - b'a')
}

/// One world. A panic in it is a violation as well.
pub(crate) fn one(seed: u64, telling: bool) -> GroupOutcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| GroupWorld::new(seed, telling).run()));
    outcome.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = format!("seed {seed}: a panic: {}", said.unwrap_or_default());
        GroupOutcome { tally: GroupTally::default(), digest: 0, violation: Some(violation) }
    })
}

/// What many worlds have come to.
#[derive(Default)]
pub(crate) struct GroupRun {
    pub(crate) seeds: u64,
    pub(crate) tally: GroupTally,
    pub(crate) digest: u64,
    /// Of the lowest seeds first.
    pub(crate) violations: BTreeMap<u64, String>,
    took: Duration,
}

impl GroupRun {
    /// Runs seeds on all processors, from the first on: so many, or for so long.
    pub(crate) fn of(first: u64, seeds: u64, limit: Option<Duration>) -> GroupRun {
        GroupRun::prepared(first, seeds, limit, VIOLATIONS_MAX, || ())
    }

    /// On threads that have done something before, up to the first that fails.
    #[cfg(feature = "mistakes")]
    pub(crate) fn up_to_violation(first: u64, seeds: u64, prepare: impl Fn() + Sync) -> GroupRun {
        GroupRun::prepared(first, seeds, None, 1, prepare)
    }

    fn prepared(
        first: u64,
        seeds: u64,
        limit: Option<Duration>,
        violations: usize,
        prepare: impl Fn() + Sync,
    ) -> GroupRun {
        let begin = Instant::now();
        let next = AtomicU64::new(first);
        let sum = Mutex::new(GroupRun::default());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    prepare();
                    loop {
                        if sum.lock().expect("no thread panics").violations.len() >= violations {
                            break;
                        }
                        let seed = next.fetch_add(1, Relaxed);
                        let is_late = limit.is_some_and(|limit| begin.elapsed() >= limit);
                        if seed >= first + seeds || is_late {
                            break;
                        }
                        let outcome = one(seed, false);
                        sum.lock().expect("no thread panics").add(seed, outcome);
                    }
                });
            }
        });
        let mut run = sum.into_inner().expect("no thread panics");
        run.took = begin.elapsed();
        run
    }

    fn add(&mut self, seed: u64, outcome: GroupOutcome) {
        self.seeds += 1;
        self.tally.add(&outcome.tally);
        let digest = outcome.digest ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.digest = self.digest.wrapping_add(digest);
        if let Some(violation) = outcome.violation {
            self.violations.insert(seed, violation);
        }
    }
}

impl fmt::Display for GroupRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GroupRun { seeds, tally, digest, took, .. } = self;
        write!(f, "{seeds} seeds in {took:.1?}: {tally}; digest {digest:016x}")?;
        self.violations.values().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}

/// A run with so many violations has shown enough.
const VIOLATIONS_MAX: usize = 10;

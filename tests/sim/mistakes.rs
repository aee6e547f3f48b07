//! The simulator is able to fail: mistakes that others made, planted one by one, and which of the
//! rules finds them.
//!
//! ```sh
//! cargo test --all-features --test sim mistakes -- --nocapture
//! TIERLOCK_SEEDS=20000 cargo test --release --no-default-features --features mistakes \
//!     --test sim mistakes -- --nocapture
//! ```
//!
//! `TIERLOCK_MISTAKE=Reserv` plants only those with that in their names.
//!
//! The first begins with a seed that is known to find each mistake, the second looks for the
//! first that does among so many. Both print mistake, seed and rule, and see that the same seeds
//! pass without the mistake. Even the rarest is found by one seed in a few hundred.

use std::ops::Range;

use tierlock::proto::mistake::{Mistake, plant};

use crate::{
    joined::JOINED,
    journal::SEVERAL,
    number,
    rules::{Rule, Violation},
    runner::{self, Run},
};

struct Planted {
    mistakes: &'static [Mistake],
    /// What is to find it, in one seed or another.
    found_by: &'static [Rule],
    /// The first seed that is known to find it.
    seed: u64,
    /// One of thousands of seeds finds it: they are looked through where `TIERLOCK_SEEDS` says how many.
    is_rare: bool,
}

const fn found(mistakes: &'static [Mistake], found_by: &'static [Rule], seed: u64) -> Planted {
    Planted { mistakes, found_by, seed, is_rare: false }
}

/// From this seed on.
const fn rare(mistakes: &'static [Mistake], found_by: &'static [Rule], seed: u64) -> Planted {
    Planted { mistakes, found_by, seed, is_rare: true }
}

/// After a change that gives the seeds another course, one of the next finds it, too.
const SEEDS_NEAR: u64 = 1000;

#[rustfmt::skip]
const PLANTED: &[Planted] = &[
    found(&[Mistake::NoDriftAllowance], &[Rule::OneHolder], 129),
    found(&[Mistake::OneSidedDrift], &[Rule::OneHolder], 289),
    found(&[Mistake::DeadlineFromReply], &[Rule::OneHolder, Rule::TokensGrow], 58),
    found(&[Mistake::RevivedLease], &[Rule::OneHolder], 151),
    found(&[Mistake::NoGrace], &[Rule::OneHolder, Rule::TokensGrow, Rule::Durable], 2),
    found(&[Mistake::ReplyBeforeRecord], &[Rule::Durable], 0),
    found(&[Mistake::ExpiryNotDurable], &[Rule::Durable], 7),
    found(&[Mistake::ReignNotDurable], &[Rule::Durable, Rule::TokensGrow], 95),
    found(&[Mistake::AboveBeyondEpoch], &[Rule::Durable], 2),
    found(&[Mistake::BlockReused], &[Rule::TokensGrow], 3),
    found(&[Mistake::LostWakeUp], &[Rule::Liveness, Rule::Queue], 3),
    found(&[Mistake::LostCancel], &[Rule::Queue], 0),
    found(&[Mistake::NoFloor], &[Rule::TokensGrow], 0),
    found(&[Mistake::BreakAtOnce], &[Rule::OneHolder, Rule::TokensGrow], 16),
    found(&[Mistake::LossNotToldAgain], &[Rule::Property, Rule::OneHolder, Rule::TokensGrow], 10),
    found(&[Mistake::HelloCountsAlone], &[Rule::OneHolder, Rule::Durable, Rule::Liveness], 4),
    found(&[Mistake::NoConnectionCount], &[Rule::OneHolder, Rule::Queue, Rule::Durable], 55),
    found(&[Mistake::OldConnectionAtClient], &[Rule::OneHolder, Rule::Durable], 326),
    found(&[Mistake::HelloNotAuthoritative], &[Rule::Liveness], 137),
    found(&[Mistake::CloseIsGoodbye], &[Rule::OneHolder, Rule::Durable], 5),
    found(&[Mistake::LeaseIdReused], &[Rule::TokensGrow, Rule::Durable], 0),
    found(&[Mistake::PlaceForgotten], &[Rule::Queue], 2),
    found(&[Mistake::LastComeFirstServed], &[Rule::Queue], 0),
    found(&[Mistake::DeposedLeaderServes], &[Rule::TokensGrow], 30),
    found(&[Mistake::SameEpochUnnoticed], &[Rule::TokensGrow], 30),
    found(&[Mistake::EarlierReignsUnknown], &[Rule::TokensGrow], 30),
    found(&[Mistake::MachineForgets], &[Rule::TokensGrow], 119),
    found(&[Mistake::JudgedAbove], &[Rule::Property], 24),
    found(&[Mistake::NoWaitAbove], &[Rule::OneHolder, Rule::Durable], 582),
    found(&[Mistake::NoPauseForHistory], &[Rule::TokensGrow, Rule::OneHolder], 24),
    found(&[Mistake::RaisedByOne], &[Rule::TokensGrow], 112),
    found(&[Mistake::ForeignLeasesConfirmed], &[Rule::Property], 20),
    found(&[Mistake::RaisesUnbounded], &[Rule::Property], 2),
    // Kept leases.
    found(&[Mistake::RecallIgnored], &[Rule::Liveness], 0),
    found(&[Mistake::RecallLostInReconnect], &[Rule::Liveness], 329),
    found(&[Mistake::BlockUsedAfterRecall], &[Rule::Queue, Rule::TokensGrow], 0),
    found(&[Mistake::KeptPastDeadline], &[Rule::OneHolder, Rule::TokensGrow], 128),
    found(&[Mistake::HandOverWithoutEnd], &[Rule::Queue], 3),
    found(&[Mistake::RestOfBlockClaims], &[Rule::Property], 847),
    // What was taken away.
    found(&[Mistake::WelcomeBeforeLost], &[Rule::Property], 10),
    found(&[Mistake::BreakAnsweredFirst], &[Rule::Durable], 98),
    // `at_least`.
    found(&[Mistake::ReservedToldFirst], &[Rule::Durable], 0),
    found(&[Mistake::ReservedAtRelease], &[Rule::Durable], 0),
    found(&[Mistake::ReservedFromGrant], &[Rule::AtLeast], 3),
    found(&[Mistake::ReportAnsweredEarly], &[Rule::Durable], 449),
    found(&[Mistake::ReservedForNone], &[Rule::AtLeast], 3),
    found(&[Mistake::UnusedReserved], &[Rule::Durable], 19),
    found(&[Mistake::RewrittenBehindDeletion], &[Rule::AtLeast], 0),
    found(&[Mistake::CountedAnew], &[Rule::AtLeast], 0),
    found(&[Mistake::ReservationEndsWithHolder], &[Rule::AtLeast], 0),
    found(&[Mistake::NoReservationAfterRestart], &[Rule::AtLeast], 23),
    found(&[Mistake::LateLoopExtends], &[Rule::AtLeast], 0),
    found(&[Mistake::UnheardNotAnew], &[Rule::AtLeast], 175),
    found(&[Mistake::ReservationOutlivesBreak], &[Rule::Durable], 110),
    // Shared and counted.
    found(&[Mistake::OneGrantPerEvent], &[Rule::Queue, Rule::Liveness], 2),
    found(&[Mistake::ReadersPassWriters], &[Rule::Queue], 2),
    found(&[Mistake::SharesConflict], &[Rule::Property], 90),
    found(&[Mistake::ReaderEndsAll], &[Rule::OneHolder, Rule::Durable], 2),
    found(&[Mistake::ShareLowersTokens], &[Rule::TokensGrow], 2),
    found(&[Mistake::ReadersBearWritersToken], &[Rule::TokensGrow], 2),
    found(&[Mistake::BrokenTokenBorneAgain], &[Rule::Property], 239),
    found(&[Mistake::ReaderNotAbove], &[Rule::TokensGrow], 9),
    found(&[Mistake::BreakTakesOne], &[Rule::Durable], 746),
    found(&[Mistake::SentWithoutAfter], &[Rule::Property], 0),
    found(&[Mistake::LoweredByTheRest], &[Rule::OneHolder, Rule::Durable], 25),
    rare(&[Mistake::BreakInGrace], &[Rule::Durable], 0),
    found(&[Mistake::SharedNotRecalled], &[Rule::Queue, Rule::Liveness], 8),
    found(&[Mistake::OneKeeperRecalled], &[Rule::Queue], 19),
    found(&[Mistake::PermitsUncounted], &[Rule::OneHolder, Rule::Durable], 2),
    found(&[Mistake::SmallPassLarge], &[Rule::Queue], 21),
    found(&[Mistake::LimitNotCompared], &[Rule::OneHolder, Rule::Durable], 16),
    found(&[Mistake::ModeNotReported], &[Rule::Property], 19),
    found(&[Mistake::UpgradedBesideReaders], &[Rule::OneHolder, Rule::Durable], 2),
    found(&[Mistake::ReadersEnterBesideUpgrade], &[Rule::Queue], 10),
    found(&[Mistake::UpgradedInGrace], &[Rule::OneHolder, Rule::Durable], 892),
    found(&[Mistake::DowngradedTokenBorne], &[Rule::TokensGrow], 2),
    // Observers.
    found(&[Mistake::EndOfLeadershipUntold], &[Rule::Property], 3),
    found(&[Mistake::ObserversToldInGrace], &[Rule::Property], 58),
    // Several leaders.
    found(&[Mistake::ProofFromAnswer], &[Rule::TwoReigns], SEVERAL + 227),
    found(&[Mistake::StandbyCountsFromSending], &[Rule::TwoReigns], SEVERAL + 37),
    found(&[Mistake::StandbyCountsHalf], &[Rule::TwoReigns], SEVERAL),
    rare(&[Mistake::NoReignAllowance], &[Rule::TwoReigns], SEVERAL),
    found(&[Mistake::ReignNamedAfterLeader], SUCCESSION, SEVERAL + 43),
    found(&[Mistake::ActsWithoutProof], &[Rule::TwoReigns], SEVERAL + 1),
    found(&[Mistake::UnknownIsDone], SUCCESSION, SEVERAL + 12),
    found(&[Mistake::ReignFromMemory], SUCCESSION, SEVERAL + 41),
    found(&[Mistake::RenewsUnchecked], &[Rule::TwoReigns], SEVERAL + 33),
    found(&[Mistake::AppendsUnnumbered], SUCCESSION, SEVERAL + 7),
    found(&[Mistake::StampsRestart], SUCCESSION, SEVERAL + 9),
    found(&[Mistake::TakesOverByReign], &[Rule::TwoReigns], SEVERAL + 7),
    // Leaders that are a group. Masked here as in groups are a condition that is evaluated too early, and
    // what only costs time: the unit tests of the group find them.
    found(&[Mistake::GroupVoteForgotten], GROUP, JOINED),
    found(&[Mistake::GroupLogNotSynced], GROUP, JOINED + 16),
    found(&[Mistake::EmptiedDiskVotes], GROUP, JOINED),
    found(&[Mistake::PutBackDiskVotes], GROUP, JOINED + 2),
    found(&[Mistake::LowDiskToldOnce], GROUP, JOINED + 79),
    found(&[Mistake::StandbyCountsHalf], &[Rule::TwoReigns], JOINED + 4),
    found(&[Mistake::ActsWithoutProof], &[Rule::TwoReigns], JOINED),
    found(&[Mistake::ReignFromMemory], SUCCESSION, JOINED + 9),
    // The bound.
    found(&[Mistake::FirstNameNotWritten], BOUND, 6),
    found(&[Mistake::BoundFromCommitted], BOUND, 114),
    found(&[Mistake::GrantedBeforeBound], BOUND, 200),
    found(&[Mistake::QueuedBeforeBound], BOUND, 2),
    found(&[Mistake::BoundForgotten], BOUND, 1),
    found(&[Mistake::EndNotAwaited], BOUND, 80),
    found(&[Mistake::SilentNotAwaited], BOUND, 60),
    found(&[Mistake::NarrowedBelowWaiting], BOUND, 0),
    rare(&[Mistake::NarrowCountsLate], BOUND, 0),
    found(&[Mistake::BoundsBeforeWaited], BOUND, 79),
];

const SUCCESSION: &[Rule] = &[
    Rule::TwoReigns,
    Rule::OneHolder,
    Rule::TokensGrow,
    Rule::Queue,
    Rule::Durable,
    Rule::AtLeast,
    Rule::Liveness,
    Rule::Property,
];

/// As a rule a disk turns out to lack what it has confirmed, before anything else comes of it.
const GROUP: &[Rule] = SUCCESSION;

const BOUND: &[Rule] = &[
    Rule::OneHolder,
    Rule::TokensGrow,
    Rule::Queue,
    Rule::Durable,
    Rule::Property,
    Rule::Liveness,
];

#[test]
fn planted_mistakes_are_found() {
    let seeds = number("TIERLOCK_SEEDS");
    println!("{:30} {:>10}  found by", "mistake", "first seed");
    let mut missed = Vec::new();
    let only = std::env::var("TIERLOCK_MISTAKE").unwrap_or_default();
    for Planted { mistakes, found_by, seed, is_rare } in PLANTED {
        let text = format!("{mistakes:?}");
        if !text.contains(&only) {
            continue;
        }
        if *is_rare && seeds.is_none() {
            println!("{text:30} {:>10}  looked for with TIERLOCK_SEEDS alone", "-");
            continue;
        }
        let begin = match *seed {
            JOINED.. => JOINED,
            SEVERAL.. => SEVERAL,
            _ => 0,
        };
        let range = seeds.map_or(*seed..seed + SEEDS_NEAR, |seeds| begin..begin + seeds);
        let Some(violation) = first_found(mistakes, found_by, range.clone()) else {
            println!("{text:30} {:>10}  not by {found_by:?} in the seeds {range:?}", "-");
            missed.push(text);
            continue;
        };
        let Violation { seed, rule, at, text: how } = violation;
        println!("{text:30} {seed:>10}  {rule:?}: {how}");
        let again = Run::prepared(seed..seed + 1, false, || plant(mistakes)).violation;
        assert_eq!(again.map(|again| (again.at, again.text)), Some((at, how)), "it replays");
        let without = runner::one(seed, false).violation;
        assert!(without.is_none(), "without {text}: {}", without.expect("just seen"));
    }
    assert!(missed.is_empty(), "not found as expected: {missed:#?}");
}

/// The first of these seeds in which one of these rules finds it. In some it is another that does,
/// or an assertion of the protocol's own.
fn first_found(mistakes: &[Mistake], by: &[Rule], mut seeds: Range<u64>) -> Option<Violation> {
    loop {
        let violation = Run::prepared(seeds.clone(), false, || plant(mistakes)).violation?;
        if by.contains(&violation.rule) {
            return Some(violation);
        }
        seeds.start = violation.seed + 1;
    }
}

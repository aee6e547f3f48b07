//! The simulator is able to fail: mistakes that others made, planted one by one, and who of the
//! rules finds them.
//!
//! ```sh
//! cargo test --all-features --test sim mistakes -- --nocapture
//! TIERLOCK_SEEDS=20000 cargo test --release --no-default-features --features mistakes \
//!     --test sim mistakes -- --nocapture
//! ```
//!
//! The first begins with a seed that is known to find each mistake, the second looks for the
//! first that does among so many. Both print mistake, seed and rule, and see that the same seeds
//! pass without the mistake.

use tierlock::proto::mistake::{Mistake, plant};

use crate::{
    number,
    rules::{Rule, Violation},
    runner::{self, Run},
};

struct Planted {
    mistakes: &'static [Mistake],
    /// What finds it, in one seed or another.
    found_by: &'static [Rule],
    /// The first seed that is known to find it.
    seed: u64,
}

const fn found(mistakes: &'static [Mistake], found_by: &'static [Rule], seed: u64) -> Planted {
    Planted { mistakes, found_by, seed }
}

/// After a change that gives the seeds another course, one of the next finds it, too.
const SEEDS_NEAR: u64 = 300;

#[rustfmt::skip]
const PLANTED: &[Planted] = &[
    found(&[Mistake::NoDriftAllowance], &[Rule::OneHolder], 30),
    found(&[Mistake::OneSidedDrift], &[Rule::OneHolder], 120),
    found(&[Mistake::DeadlineFromReply], &[Rule::OneHolder, Rule::TokensGrow], 11),
    found(&[Mistake::RevivedLease], &[Rule::OneHolder], 417),
    found(&[Mistake::NoGrace], &[Rule::OneHolder, Rule::Durable], 1),
    found(&[Mistake::ReplyBeforeRecord], &[Rule::Durable], 0),
    found(&[Mistake::ExpiryNotDurable], &[Rule::Durable], 4),
    found(&[Mistake::ReignNotDurable], &[Rule::Durable, Rule::TokensGrow], 34),
    found(&[Mistake::AboveBeyondEpoch], &[Rule::Durable], 0),
    found(&[Mistake::BlockAcrossEpochs], &[Rule::Durable], 0),
    found(&[Mistake::BlockReused], &[Rule::TokensGrow], 4),
    found(&[Mistake::LostWakeUp], &[Rule::Liveness, Rule::Queue], 5),
    found(&[Mistake::LostCancel], &[Rule::Queue], 0),
    found(&[Mistake::NoFloor], &[Rule::TokensGrow], 0),
    found(&[Mistake::BreakAtOnce], &[Rule::OneHolder, Rule::TokensGrow], 2),
    found(&[Mistake::LossNotToldAgain], &[Rule::OneHolder], 1334),
    found(&[Mistake::HelloCountsAlone], &[Rule::OneHolder, Rule::Durable, Rule::Liveness], 4),
    found(&[Mistake::NoConnectionCount], &[Rule::OneHolder, Rule::Property], 15507),
    found(&[Mistake::OldConnectionAtClient], &[Rule::OneHolder, Rule::Durable], 165),
    found(&[Mistake::HelloNotAuthoritative], &[Rule::Liveness], 84),
    found(&[Mistake::CloseIsGoodbye], &[Rule::OneHolder, Rule::Durable], 15),
    found(&[Mistake::LeaseIdReused], &[Rule::TokensGrow], 0),
    found(&[Mistake::PlaceForgotten], &[Rule::Queue], 0),
    found(&[Mistake::LastComeFirstServed], &[Rule::Queue], 0),
    found(&[Mistake::DeposedLeaderServes], &[Rule::TokensGrow], 19),
    found(&[Mistake::SameEpochUnnoticed], &[Rule::TokensGrow], 19),
    found(&[Mistake::NoWaitAbove], &[Rule::OneHolder, Rule::Durable], 235),
    // Kept leases.
    found(&[Mistake::RecallIgnored], &[Rule::Liveness], 0),
    found(&[Mistake::RecallLostInReconnect], &[Rule::Liveness], 4),
    found(&[Mistake::BlockUsedAfterRecall], &[Rule::Queue, Rule::TokensGrow], 0),
    found(&[Mistake::KeptPastDeadline], &[Rule::OneHolder, Rule::TokensGrow], 175),
    found(&[Mistake::HandOverWithoutEnd], &[Rule::Queue], 0),
    found(&[Mistake::RestOfBlockClaims], &[Rule::Property], 298),
];

#[test]
fn planted_mistakes_are_found() {
    let seeds = number("TIERLOCK_SEEDS");
    println!("{:30} {:>10}  found by", "mistake", "first seed");
    let mut missed = Vec::new();
    for Planted { mistakes, found_by, seed } in PLANTED {
        let text = format!("{mistakes:?}");
        let range = seeds.map_or(*seed..seed + SEEDS_NEAR, |seeds| 0..seeds);
        let Some(violation) = first_found(mistakes, range.clone()) else {
            println!("{text:30} {:>10}  nothing in the seeds {range:?}", "-");
            missed.push(text);
            continue;
        };
        let Violation { seed, rule, text: how, .. } = violation;
        println!("{text:30} {seed:>10}  {rule:?}: {how}");
        if !found_by.contains(&rule) {
            missed.push(format!("{text}, which {rule:?} found"));
        }
        let without = runner::one(seed, false).violation;
        assert!(without.is_none(), "without {text}: {}", without.expect("just seen"));
    }
    assert!(missed.is_empty(), "not found as expected: {missed:#?}");
}

fn first_found(mistakes: &[Mistake], seeds: std::ops::Range<u64>) -> Option<Violation> {
    Run::prepared(seeds, false, || plant(mistakes)).violation
}

//! The simulator is able to fail: mistakes that others made, planted one by one, and who of the
//! rules finds them.
//!
//! ```sh
//! cargo test --all-features --test sim mistakes -- --nocapture
//! TIERLOCK_SEEDS=20000 cargo test --release --all-features --test sim mistakes -- --nocapture
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
    found(&[Mistake::NoDriftAllowance], &[Rule::OneHolder], 0),
    found(&[Mistake::DeadlineFromReply], &[Rule::OneHolder], 0),
    found(&[Mistake::RevivedLease], &[Rule::OneHolder], 0),
    found(&[Mistake::NoGrace], &[Rule::OneHolder, Rule::Durable], 0),
    found(&[Mistake::ReplyBeforeRecord], &[Rule::Durable], 0),
    found(&[Mistake::ExpiryNotDurable], &[Rule::Durable], 0),
    found(&[Mistake::ReignNotDurable], &[Rule::Durable, Rule::TokensGrow], 0),
    found(&[Mistake::AboveBeyondEpoch], &[Rule::Durable], 0),
    found(&[Mistake::BlockAcrossEpochs], &[Rule::Durable], 0),
    found(&[Mistake::BlockReused], &[Rule::TokensGrow], 0),
    found(&[Mistake::LostWakeUp], &[Rule::Liveness, Rule::Queue], 0),
    found(&[Mistake::LostCancel], &[Rule::Queue], 0),
    found(&[Mistake::NoFloor], &[Rule::TokensGrow], 0),
    found(&[Mistake::BreakAtOnce], &[Rule::OneHolder, Rule::TokensGrow], 2),
    found(&[Mistake::LossNotToldAgain], &[Rule::OneHolder], 0),
    found(&[Mistake::HelloCountsAlone], &[Rule::OneHolder, Rule::Durable, Rule::Liveness], 0),
    found(&[Mistake::OldConnectionAtClient], &[Rule::OneHolder, Rule::Durable], 0),
    found(&[Mistake::HelloNotAuthoritative], &[Rule::Liveness], 0),
    found(&[Mistake::CloseIsGoodbye], &[Rule::OneHolder, Rule::Durable, Rule::Assertion], 0),
    found(&[Mistake::LeaseIdReused], &[Rule::TokensGrow], 0),
    found(&[Mistake::PlaceForgotten], &[Rule::Queue], 0),
    found(&[Mistake::LastComeFirstServed], &[Rule::Queue], 0),
    // Kept leases.
    found(&[Mistake::RecallIgnored], &[Rule::Liveness], 0),
    found(&[Mistake::RecallLostInReconnect], &[Rule::Liveness], 0),
    found(&[Mistake::BlockUsedAfterRecall], &[Rule::Queue, Rule::TokensGrow], 0),
    found(&[Mistake::KeptPastDeadline], &[Rule::OneHolder, Rule::TokensGrow], 0),
    found(&[Mistake::HandOverWithoutEnd], &[Rule::Queue], 0),
];

/// What so few seeds do not find: a longer run does, the second of the commands above.
#[rustfmt::skip]
const PLANTED_DEEPER: &[Planted] = &[
    found(&[Mistake::OneSidedDrift], &[Rule::OneHolder], 0),
    found(&[Mistake::NoConnectionCount], &[Rule::OneHolder], 0),
    found(&[Mistake::RestOfBlockClaims], &[Rule::Property, Rule::OneHolder, Rule::Durable], 0),
];

#[test]
fn planted_mistakes_are_found() {
    let seeds = number("TIERLOCK_SEEDS");
    println!("{:30} {:>10}  found by", "mistake", "first seed");
    let mut missed = Vec::new();
    let deeper = if seeds.is_some() { PLANTED_DEEPER } else { &[] };
    for Planted { mistakes, found_by, seed } in PLANTED.iter().chain(deeper) {
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

//! The simulator is able to fail: mistakes that others made, planted one by one, and who of the
//! rules finds them.
//!
//! ```sh
//! cargo test --all-features --test sim mistakes -- --nocapture
//! ```

use tierlock::proto::mistake::{Mistake, plant};

use crate::{
    rules::Rule,
    runner::{self, Run},
};

struct Planted {
    mistakes: &'static [Mistake],
    /// What finds it, in one seed or another.
    found_by: &'static [Rule],
    /// Within so many seeds.
    seeds: u64,
}

const PLANTED: &[Planted] = &[
    Planted { mistakes: &[Mistake::NoDriftAllowance], found_by: &[Rule::OneHolder], seeds: 2000 },
    Planted { mistakes: &[Mistake::OneSidedDrift], found_by: &[Rule::OneHolder], seeds: 2000 },
    Planted { mistakes: &[Mistake::DeadlineFromReply], found_by: &[Rule::OneHolder], seeds: 2000 },
    Planted { mistakes: &[Mistake::RevivedLease], found_by: &[Rule::OneHolder], seeds: 2000 },
];

#[test]
fn planted_mistakes_are_found() {
    println!("{:40} {:>10}  found by", "mistake", "first seed");
    let mut missed = Vec::new();
    for Planted { mistakes, found_by, seeds } in PLANTED {
        let text = format!("{mistakes:?}");
        let run = Run::prepared(0..*seeds, false, || plant(mistakes));
        let Some(violation) = run.violation else {
            println!("{text:40} {:>10}  nothing in {seeds} seeds", "-");
            missed.push(text);
            continue;
        };
        println!("{text:40} {:>10}  {:?}: {}", violation.seed, violation.rule, violation.text);
        if !found_by.contains(&violation.rule) {
            missed.push(format!("{text}, which {:?} found", violation.rule));
        }
        let without = runner::one(violation.seed, false).violation;
        assert!(without.is_none(), "without {text}: {}", without.expect("just seen"));
    }
    assert!(missed.is_empty(), "not found as expected: {missed:#?}");
}

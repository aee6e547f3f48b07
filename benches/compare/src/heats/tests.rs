use super::*;
use crate::bench::run::usual_seconds;

#[test]
fn usual_run_takes_a_few_minutes() {
    let all: Vec<_> = HEATS.iter().collect();
    assert!(usual_seconds(&all) < 300.0);
}

use super::*;

#[test]
fn default_run_takes_half_a_minute() {
    let all: Vec<_> = HEATS.iter().collect();
    assert!(run::usual_seconds(&all) < 30.0);
}

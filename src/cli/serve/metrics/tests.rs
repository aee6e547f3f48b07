use std::time::Duration;

use super::*;
use crate::proto::{leader::tally::LeaderTally, wire::LeaderStanding};

/// Of a leader that stands by there is little to say, and nothing is made up.
#[test]
fn a_standby_has_metrics_of_the_reign_that_it_knows_of() {
    let view = LeaderView {
        health: LeaderHealth {
            standing: LeaderStanding {
                rank: LeaderRank::StandsBy,
                cluster: None,
                reign: None,
                epoch: 7,
                lasts: Some(Duration::from_secs(1)),
                address: Some("10.0.0.9:7420".to_owned()),
                proven: Some(Duration::from_millis(250)),
                journal_took: None,
                lag: Some(Duration::from_millis(40)),
            },
            has_proof: false,
            in_grace: false,
        },
        counts: None,
        longest_queue: 0,
        tally: LeaderTally { late_before: Duration::from_millis(1500), ..LeaderTally::default() },
        minute: Vec::new(),
        turns: Default::default(),
        locks: None,
    };
    let text = text(Arc::new(view));
    for line in [
        "tierlock_reigning 0",
        "tierlock_reign_proven 0",
        "tierlock_epoch 7",
        "tierlock_proof_age_seconds 0.25",
        "tierlock_reign_lasts_seconds 1.0",
        "tierlock_journal_lag_seconds 0.04",
        "tierlock_leases 0",
        "tierlock_deadlocks_total 0",
        "tierlock_handshakes_refused_total{reason=\"other_secret\"} 0",
        "tierlock_handshakes_refused_total{reason=\"other_protocol\"} 0",
        // What it was late by before, when it reigned.
        "tierlock_late_seconds_total 1.5",
        "tierlock_grants_total{mode=\"exclusive\"} 0",
        "tierlock_wait_seconds_bucket{le=\"+Inf\"} 0",
        "# TYPE tierlock_wait_seconds histogram",
        "# TYPE tierlock_sessions_expired_total counter",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} is not in {text}");
    }
    assert!(!text.contains("10.0.0.9"), "an address is in the metrics");
}

//! What is made of the answers of leaders.

use super::*;
use crate::proto::ClusterId;

fn asked(told: Result<LeaderStanding, NotTold>) -> AskedLeader {
    AskedLeader { address: "10.0.0.1:7420".to_owned(), told, group: None }
}

fn standby() -> LeaderStanding {
    LeaderStanding {
        rank: LeaderRank::StandsBy,
        cluster: Some(ClusterId(1)),
        reign: Some(ReignId(2)),
        epoch: 3,
        lasts: Some(Duration::from_secs(1)),
        address: Some("10.0.0.2:7420".to_owned()),
        proven: Some(Duration::ZERO),
        journal_took: Some(Duration::from_millis(1)),
        lag: Some(Duration::ZERO),
    }
}

fn troubles(all: &[AskedLeader]) -> usize {
    findings(all).iter().filter(|found| found.level == Level::Trouble).count()
}

/// It does not tell what it is, and may be in the best of health.
#[test]
fn a_leader_of_an_earlier_release_is_no_trouble_and_may_be_the_one_that_reigns() {
    let all = [asked(Ok(standby())), asked(Err(NotTold::Older))];
    assert_eq!(troubles(&all), 0);
    assert_eq!(reigning_unheard(&all, ReignId(1)).as_deref(), Some("10.0.0.2:7420"));
    assert_eq!(reigning_unheard(&all, ReignId(2)), None, "nothing has changed");
    let silent = [asked(Ok(standby())), asked(Err(NotTold::Silent("no answer".to_owned())))];
    assert_eq!(troubles(&silent), 2, "it is silent, and none reigns");
    assert_eq!(reigning_unheard(&silent, ReignId(1)), None);
}

#[test]
fn answers_without_sense_are_findings() {
    let told = LeaderStanding {
        rank: LeaderRank::Reigns,
        lasts: Some(Duration::MAX),
        proven: Some(Duration::MAX),
        journal_took: Some(Duration::MAX),
        ..standby()
    };
    assert!(!findings(&[asked(Ok(told.clone()))]).is_empty());
    let told = LeaderStanding { lasts: Some(Duration::from_secs(1)), ..told };
    assert!(troubles(&[asked(Ok(told))]) > 0);
}

#[test]
fn leaders_of_two_clusters_do_not_belong_together() {
    let other = LeaderStanding { cluster: Some(ClusterId(9)), ..standby() };
    let unread = LeaderStanding { cluster: None, ..standby() };
    let of = |all: [LeaderStanding; 2]| are_of_several_clusters(&all.map(|told| asked(Ok(told))));
    assert!(of([standby(), other.clone()]) && !of([standby(), unread.clone()]));
    assert!(!of([unread, other]));
}

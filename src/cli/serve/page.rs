//! The page that shows the locks, and what its script asks for.

use serde::Serialize;

use crate::{
    api::status::{LockStatus, at_the_leader},
    cli::status::ShownLock,
    host::LeaderView,
    proto::{leader::LockSurvey, wire::LeaderRank},
};

pub(super) const HTML: &str = include_str!("page/page.html");
pub(super) const SCRIPT: &str = include_str!("page/page.js");
pub(super) const STYLE: &str = include_str!("page/page.css");

/// How many locks are shown.
pub(super) const LOCKS_MAX: usize = 200;

#[derive(Serialize)]
struct PageView<'a> {
    leader: PageLeader<'a>,
    /// How many names there are, shown or not.
    names: usize,
    sessions: usize,
    leases: usize,
    waiters: usize,
    /// Those that most wait for first.
    locks: Vec<PageLock<'a>>,
    /// The last minute, second by second, the oldest first.
    minute: Vec<PageSecond>,
}

#[derive(Serialize)]
struct PageLeader<'a> {
    rank: &'static str,
    in_grace: bool,
    has_proof: bool,
    epoch: u32,
    /// Where the leader is that reigns, where this one knows.
    address: Option<&'a str>,
}

#[derive(Serialize)]
struct PageLock<'a> {
    #[serde(flatten)]
    lock: ShownLock<'a>,
    /// In digits: a script's numbers are too short for it.
    token_digits: String,
    /// How many wait, of which `waiters` are the first.
    waiting: usize,
    /// How many hold it, of which `holders` are some.
    holding: u32,
}

#[derive(Serialize)]
struct PageSecond {
    grants: u32,
    longest_ms: f64,
}

/// What is shown, for the page's script and other programs.
pub(super) fn json(view: &LeaderView) -> String {
    let nothing = LockSurvey::default();
    let survey = view.locks.as_ref().unwrap_or(&nothing);
    let counts = view.counts.unwrap_or_default();
    let shown: Vec<(LockStatus, usize, u32)> = survey
        .locks
        .iter()
        .map(|(lock, waiting)| (at_the_leader(lock.clone()), *waiting, lock.holders))
        .collect();
    let page = PageView {
        leader: PageLeader {
            rank: match view.health.standing.rank {
                LeaderRank::Reigns => "reigns",
                LeaderRank::StandsBy => "stands by",
                LeaderRank::Ended => "ended",
            },
            in_grace: view.health.in_grace,
            has_proof: view.health.has_proof,
            epoch: view.health.standing.epoch,
            address: view.health.standing.address.as_deref(),
        },
        names: survey.names,
        sessions: counts.sessions,
        leases: counts.leases,
        waiters: counts.waiters,
        locks: shown
            .iter()
            .map(|(lock, waiting, holding)| PageLock {
                lock: lock.into(),
                token_digits: lock.token.to_string(),
                waiting: *waiting,
                holding: *holding,
            })
            .collect(),
        minute: view
            .minute
            .iter()
            .map(|second| PageSecond {
                grants: second.grants,
                longest_ms: second.longest.as_secs_f64() * 1e3,
            })
            .collect(),
    };
    serde_json::to_string(&page).expect("it is text and numbers")
}

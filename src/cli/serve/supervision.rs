//! What a service manager is told of a leader: systemd with `Type=notify`, or another one that sets
//! `NOTIFY_SOCKET`.
//!
//! It hears when the leader can be reached, what it is (`systemctl status` shows that line), and when it
//! ends. Where it wants to hear regularly (`WatchdogSec=`), it hears only as long as the leader's thread
//! answers: one that stands still is ended by it and started anew, and its clients keep their locks as
//! after any restart.

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sd_notify::NotifyState;

use super::super::events::Events;
use crate::{
    host::{LeaderHealth, LeaderWindow},
    proto::wire::LeaderRank,
};

/// How often the leader is asked what it is, where nothing more is wanted.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// So many times within the time that the service manager waits for is it told.
const TOLD_WITHIN: u32 = 4;

/// The service manager that has started this process, if there is one that wants to hear.
pub(super) struct ServiceManager {
    window: LeaderWindow,
    every: Duration,
    is_watched: bool,
    asked: Option<Instant>,
    /// What the leader has answered since, of which this wakes the main thread.
    answer: Arc<Mutex<Option<String>>>,
    waker: Waker,
    status: String,
}

impl ServiceManager {
    /// Tells it that the leader can be reached. `None` without a service manager.
    pub(super) fn told_ready(window: LeaderWindow, events: &Events) -> Option<ServiceManager> {
        std::env::var_os("NOTIFY_SOCKET")?;
        let watched = sd_notify::watchdog_enabled();
        let every = watched.map_or(ASKED_EVERY, |within| (within / TOLD_WITHIN).min(ASKED_EVERY));
        tell(&[NotifyState::Ready]);
        Some(ServiceManager {
            window,
            every,
            is_watched: watched.is_some(),
            asked: None,
            answer: Arc::default(),
            waker: events.waker(),
            status: String::new(),
        })
    }

    /// To be called again and again: tells what the leader has answered, and asks it again when it is time.
    pub(super) fn look(&mut self) {
        if let Some(status) = self.answer.lock().take() {
            if self.is_watched {
                tell(&[NotifyState::Watchdog]);
            }
            if status != self.status {
                tell(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= self.every) {
            self.asked = Some(Instant::now());
            let (answer, waker) = (self.answer.clone(), self.waker.clone());
            self.window.look_at_health(move |health| {
                *answer.lock() = Some(status_of(&health));
                waker.wake();
            });
        }
    }

    /// For how long nothing is to be asked of the leader.
    pub(super) fn sleeps(&self) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| self.every.saturating_sub(asked.elapsed()))
    }

    /// Tells it that the leader ends in good order.
    pub(super) fn tell_stopping(self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// A service manager that does not hear is no reason to end.
fn tell(states: &[NotifyState]) {
    let _ = sd_notify::notify(states);
}

fn status_of(health: &LeaderHealth) -> String {
    let (standing, epoch) = (&health.standing, health.standing.epoch);
    match standing.rank {
        LeaderRank::Reigns if !health.has_proof => "without proof of its reign".to_owned(),
        LeaderRank::Reigns if health.in_grace => {
            format!("reigns in epoch {epoch}, and waits for clients of the last one")
        }
        LeaderRank::Reigns => format!("reigns in epoch {epoch}"),
        LeaderRank::StandsBy => match &standing.address {
            Some(address) => format!("stands by for the leader at {address}"),
            None => "stands by".to_owned(),
        },
        LeaderRank::Ended => "has ended".to_owned(),
    }
}

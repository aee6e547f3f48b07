//! The connections of the page, which are bounded.
//!
//! Where there is no room for one more, that one is ended whose peer has kept it waiting for longest: it has not
//! said yet what it wants, or does not read its answer. So such connections keep no other out, a probe of the
//! leader's health for instance, by which it might be ended. One that waits for the leader is not ended: that is
//! bounded by itself.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

pub(super) const CONNECTIONS_MAX: usize = 64;

/// All connections.
#[derive(Default)]
pub(super) struct HttpHouse {
    book: Mutex<HouseBook>,
    /// A place has become free, or a connection may be ended now.
    changed: Notify,
}

#[derive(Default)]
struct HouseBook {
    /// The last number that was given, to a connection or to the beginning of a wait.
    last: u64,
    /// At most [`CONNECTIONS_MAX`].
    connections: BTreeMap<u64, HttpResident>,
}

struct HttpResident {
    /// When the wait for its peer began, among all of them; `None`: it waits for the leader.
    idle_since: Option<u64>,
    /// How it is ended; `None`: it has not begun to run.
    end: Option<AbortHandle>,
}

/// A place among the connections.
pub(super) struct HttpPlace {
    house: Arc<HttpHouse>,
    number: u64,
}

impl HttpHouse {
    /// Waits for room, and makes some if it can.
    pub(super) async fn place(self: &Arc<Self>) -> HttpPlace {
        loop {
            // Before it looks: a change after that is not missed.
            let changed = self.changed.notified();
            if let Some(place) = self.place_now() {
                return place;
            }
            changed.await;
        }
    }

    fn place_now(self: &Arc<Self>) -> Option<HttpPlace> {
        let mut book = self.book.lock();
        let ended = match book.connections.len() < CONNECTIONS_MAX {
            true => None,
            // The place is free at once: what it ends is dropped before the next connection is looked at.
            false => Some(book.remove_idlest()?),
        };
        let number = book.number();
        book.connections.insert(number, HttpResident { idle_since: Some(number), end: None });
        drop(book);
        if let Some(end) = ended {
            end.abort();
        }
        Some(HttpPlace { house: self.clone(), number })
    }

    /// The connection of this place is ended so.
    pub(super) fn may_end(&self, number: u64, end: AbortHandle) {
        self.change(number, |resident, _| resident.end = Some(end));
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut HttpResident, u64)) {
        let mut book = self.book.lock();
        let now = book.number();
        if let Some(resident) = book.connections.get_mut(&number) {
            change(resident, now);
        }
        drop(book);
        self.changed.notify_waiters();
    }
}

impl HouseBook {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Takes out the connection that has waited longest for its peer, if there is one.
    fn remove_idlest(&mut self) -> Option<AbortHandle> {
        let idle = self.connections.iter().filter(|(_, resident)| resident.end.is_some());
        let idle = idle.filter_map(|(number, resident)| Some((resident.idle_since?, *number)));
        let (_, number) = idle.min()?;
        self.connections.remove(&number)?.end
    }
}

impl HttpPlace {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its peer has said what it wants, and now waits for that.
    pub(super) fn is_asked(&self) {
        self.house.change(self.number, |resident, _| resident.idle_since = None);
    }

    /// What its peer wants is there, and to be read.
    pub(super) fn is_answered(&self) {
        self.house.change(self.number, |resident, now| resident.idle_since = Some(now));
    }
}

impl Drop for HttpPlace {
    fn drop(&mut self) {
        // It may have been given to another already.
        self.house.book.lock().connections.remove(&self.number);
        self.house.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;

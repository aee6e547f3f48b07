//! The leader: who holds what, who waits, and until when.
use super::{
    ConnectionId,
    record::{Committed, Pending, Recovered},
    wire::{ClientMessage, LeaderMessage},
};
use crate::time::Time;
use std::time::Duration;

/// What a leader accepts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest time to live it accepts (at most 60 s).
    pub time_to_live_max: Duration,
    pub sessions_max: usize,
    pub leases_per_session_max: usize,
    pub waiters_per_session_max: usize,
    /// Start above this epoch, granting nothing for 60 s × 1.01 (`serve --epoch-above`).
    pub epoch_above: Option<u32>,
}

/// Why the driver is to close a connection, told to the peer as the close reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// A newer connection of the same session took over.
    Superseded,
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// Said goodbye, or was ended.
    Ended,
}

/// Things the driver writes to its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A client has seen a later epoch: this state is old; nothing is granted any more.
    OldState { seen: u32, own: u32 },
}

pub struct Leader {}

impl Leader {
    /// A new reign over what the journal recovered. The first record it asks for is its `TookOver`.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Leader {
        let _ = (config, recovered, now);
        todo!()
    }
    pub fn handle_connected(&mut self, connection: ConnectionId, now: Time) {
        let _ = (connection, now);
        todo!()
    }
    pub fn handle_message(&mut self, connection: ConnectionId, message: ClientMessage, now: Time) {
        let _ = (connection, message, now);
        todo!()
    }
    pub fn handle_disconnected(&mut self, connection: ConnectionId, now: Time) {
        let _ = (connection, now);
        todo!()
    }
    pub fn handle_committed(&mut self, committed: Committed, now: Time) {
        let _ = (committed, now);
        todo!()
    }
    /// The journal failed: the reign is over; nothing is granted, renewed or expired any more.
    pub fn handle_storage_failed(&mut self, now: Time) {
        let _ = now;
        todo!()
    }
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
        todo!()
    }
    pub fn poll_message(&mut self) -> Option<(ConnectionId, LeaderMessage)> {
        todo!()
    }
    pub fn poll_close(&mut self) -> Option<(ConnectionId, Close)> {
        todo!()
    }
    pub fn poll_record(&mut self) -> Option<Pending> {
        todo!()
    }
    pub fn poll_notice(&mut self) -> Option<Notice> {
        todo!()
    }
    /// When `handle_timeout` is next due. Never more than 100 ms after the last event, so that the leader can
    /// tell its own lateness.
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }
}

//! A leader that has its journal for itself, or one of several that follow each other.

use std::ops::Deref;

use tierlock::{
    Time,
    proto::{
        ClientId, ConnectionId,
        leader::{Close, LeaderMachine, Notice},
        record::{Committed, Pending, Unwritten},
        successor::Successor,
        wire::{ClientMessage, LeaderMessage},
    },
};

pub(crate) enum Rank {
    Sole(Box<LeaderMachine>),
    Successor(Box<Successor>),
}

impl Rank {
    /// The leader, if there is one: a standby has none.
    pub(crate) fn leader(&self) -> Option<&LeaderMachine> {
        match self {
            Rank::Sole(leader) => Some(leader),
            Rank::Successor(successor) => successor.leader(),
        }
    }

    pub(crate) fn successor(&mut self) -> Option<&mut Successor> {
        match self {
            Rank::Sole(_) => None,
            Rank::Successor(successor) => Some(successor),
        }
    }

    pub(crate) fn handle_connected(&mut self, connection: ConnectionId, now: Time) {
        match self {
            Rank::Sole(leader) => leader.handle_connected(connection, ClientId(0), now),
            Rank::Successor(successor) => {
                let mut turn = successor.turn(now).expect(LET_IN);
                turn.handle_connected(connection, ClientId(0));
            }
        }
    }

    pub(crate) fn handle_message(
        &mut self,
        connection: ConnectionId,
        message: ClientMessage,
        now: Time,
    ) {
        match self {
            Rank::Sole(leader) => leader.handle_message(connection, message, now),
            Rank::Successor(successor) => {
                successor.turn(now).expect(LET_IN).handle_message(connection, message);
            }
        }
    }

    pub(crate) fn handle_disconnected(&mut self, connection: ConnectionId, now: Time) {
        match self {
            Rank::Sole(leader) => leader.handle_disconnected(connection, now),
            Rank::Successor(successor) => {
                successor.turn(now).expect(LET_IN).handle_disconnected(connection);
            }
        }
    }

    /// What is due by now.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        match self {
            Rank::Sole(leader) if leader.poll_timeout().is_some_and(|at| at <= now) => {
                leader.handle_timeout(now);
            }
            Rank::Sole(_) => {}
            Rank::Successor(successor) => {
                if let Some(mut turn) = successor.turn(now) {
                    turn.handle_timeout();
                }
            }
        }
    }

    /// The disk's answers are those of a leader that has it for itself.
    fn sole(&mut self) -> &mut LeaderMachine {
        match self {
            Rank::Sole(leader) => leader,
            Rank::Successor(_) => panic!("its journal is no disk"),
        }
    }

    pub(crate) fn handle_committed(&mut self, committed: Committed, now: Time) {
        self.sole().handle_committed(committed, now);
    }

    pub(crate) fn handle_unwritten(&mut self, unwritten: Unwritten, now: Time) {
        self.sole().handle_unwritten(unwritten, now);
    }

    pub(crate) fn handle_storage_failed(&mut self, now: Time) {
        self.sole().handle_storage_failed(now);
    }

    pub(crate) fn poll_message(&mut self) -> Option<(ConnectionId, LeaderMessage)> {
        match self {
            Rank::Sole(leader) => leader.poll_message(),
            Rank::Successor(successor) => successor.poll_message(),
        }
    }

    pub(crate) fn poll_close(&mut self) -> Option<(ConnectionId, Close)> {
        match self {
            Rank::Sole(leader) => leader.poll_close(),
            Rank::Successor(successor) => successor.poll_close(),
        }
    }

    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        match self {
            Rank::Sole(leader) => leader.poll_notice(),
            Rank::Successor(successor) => successor.poll_notice(),
        }
    }

    /// A successor's records go to its reign.
    pub(crate) fn poll_record(&mut self) -> Option<Pending> {
        match self {
            Rank::Sole(leader) => leader.poll_record(),
            Rank::Successor(_) => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        match self {
            Rank::Sole(leader) => leader.poll_timeout(),
            Rank::Successor(successor) => successor.poll_timeout(),
        }
    }
}

/// The rules look at what a leader has, where there is one.
impl Deref for Rank {
    type Target = LeaderMachine;

    fn deref(&self) -> &LeaderMachine {
        self.leader().expect("a leader is looked at")
    }
}

const LET_IN: &str = "at one time it is either let in or not";

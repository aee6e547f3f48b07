//! What the thread of a leader does for the group that it is of: it hands in what the other members say,
//! answers what operators ask of the group, and leaves it in good order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use super::court::Court;
use crate::{
    clock,
    host::net::quic::{CloseCode, PortEvent},
    proto::{
        ConnectionId,
        rights::PermittedMessage,
        wire::{ClientMessage, LeaderMessage, MemberMessage},
    },
};

/// How long a leader that ends waits at most until another member leads the log.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

impl Court {
    /// Hands in what other members have said, and sends what operators are answered.
    pub(super) fn serve_members(&mut self) {
        let Some(group) = &mut self.group else { return };
        while let Some(event) = self.doors.poll_member_event() {
            match event {
                PortEvent::Connected(..)
                | PortEvent::TurnedAway(..)
                | PortEvent::Unaccepted(..) => {}
                PortEvent::Readable(id) => {
                    while let Some(message) = self.doors.read::<MemberMessage>(id) {
                        if let Err(why) = group.door.handle(id, message) {
                            self.doors.close(id, CloseCode::OtherCluster, &why);
                        }
                    }
                }
                PortEvent::Ended(id, _) => {
                    group.door.forget(id);
                    self.doors.forget(id);
                }
            }
        }
        group.door.hand_in();
        for (id, answer) in std::mem::take(&mut *self.shared.group_answers.lock()) {
            self.doors.write(id, &answer);
        }
    }

    /// Whether that was an operator's question about the group, which is answered when it can be.
    pub(super) fn answers_about_group(&self, id: ConnectionId, message: &PermittedMessage) -> bool {
        let Some(group) = &self.group else { return false };
        let shared = self.shared.clone();
        let answer = move |answer| {
            shared.group_answers.lock().push((id, answer));
            shared.bell.ring();
        };
        match *message.get() {
            ClientMessage::AskGroup { query } => group.journal.ask_standing(move |report| {
                answer(LeaderMessage::Group { query, report: report.map(Box::new) });
            }),
            ClientMessage::Replace { query, ref member } => {
                group.journal.replace(member, move |outcome| {
                    answer(LeaderMessage::Replaced { query, outcome });
                });
            }
            _ => return false,
        }
        true
    }

    /// Before its end: hands over its reign, then the log's lead, and tells its clients which leader follows. The
    /// other members are heard meanwhile, since nothing of that can be done without them.
    pub(super) fn leave_group(&mut self) {
        if self.group.is_none() {
            return;
        }
        self.is_leaving = true;
        let hands_over = self.successor.reign().reigning().is_some();
        self.successor.hand_over(clock::now());
        // It ends by itself, however the journal answers.
        while self.successor.is_handing_over() {
            self.turn();
            self.sleep();
        }
        if hands_over {
            self.shared.note("it has handed its reign over".to_owned(), None);
        }
        let has_left = Arc::new(AtomicBool::new(false));
        if let Some(group) = &self.group {
            let (has_left, shared) = (has_left.clone(), self.shared.clone());
            group.journal.leave(move || {
                has_left.store(true, Release);
                shared.bell.ring();
            });
        }
        let until = clock::now() + LEAVES_WITHIN;
        while (!has_left.load(Acquire) && clock::now() < until) || self.successor.is_parting() {
            self.turn();
            self.sleep();
        }
    }
}

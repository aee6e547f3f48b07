//! The reign's own record: what waits for it, and what ends with it.

use super::{LeaderMachine, PLACES_MAX};
use crate::{
    proto::{
        lock::{PackedId, Waiter},
        record::{DurableEpoch, Record},
        wire::Refusal,
    },
    time::Time,
    token::Token,
};

impl LeaderMachine {
    pub(super) fn begin_reign(&mut self, reign: DurableEpoch, now: Time) {
        if self.reign.as_ref().is_some_and(|own| own.epoch() >= reign.epoch()) {
            return;
        }
        self.history.raise(reign.epoch(), reign.starts_above());
        if self.reign.replace(reign).is_none() {
            self.began = now;
            self.begin_grace(now);
        } else {
            self.tell_raised();
        }
        (self.leases_made, self.places_given) = (0, 0);
        self.unsettled.extend(std::mem::take(&mut self.awaiting_epoch));
        self.read_early(now);
    }

    /// What came before there was an answer to it.
    pub(super) fn read_early(&mut self, now: Time) {
        self.early_shares.clear();
        for (connection, message) in std::mem::take(&mut self.early) {
            self.read(connection, message, now);
            self.settle(now);
        }
    }

    pub(super) fn end_reign(&mut self, why: Refusal) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(why);
        let waiting: Vec<_> =
            self.table.all().flat_map(|lock| self.table.first_waiters(lock, usize::MAX)).collect();
        for waiter in waiting {
            let Waiter { session, request, .. } = self.take_waiter(waiter);
            self.refuse(session, request, why, None);
        }
        self.refuse_questions();
    }

    /// The epoch that it grants in; 0 before that is durable.
    pub(crate) fn epoch(&self) -> u32 {
        self.reign.as_ref().map_or(0, DurableEpoch::epoch)
    }

    /// Asks for a higher epoch to be made durable; `false` if there is none that high.
    pub(super) fn ask_epoch(&mut self, epoch: u32) -> bool {
        if epoch > Token::MAX_EPOCH {
            return false;
        }
        if epoch > self.epoch_asked {
            self.epoch_asked = epoch;
            self.write(Record::EpochRaised { epoch, starts_above: false });
        }
        true
    }

    pub(super) fn next_place(&mut self) -> PackedId {
        // Halfway the next epoch is asked for, long before the count could be exhausted.
        if self.places_given == PLACES_MAX / 2 {
            self.ask_epoch(self.epoch() + 1);
        }
        self.places_given = PLACES_MAX.min(self.places_given + 1);
        PackedId::new(self.epoch(), self.places_given).expect("both are within their bounds")
    }
}

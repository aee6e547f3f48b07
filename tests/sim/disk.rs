//! A disk that forgets what it did not confirm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tierlock::{
    LostReason, Name, Token,
    proto::{
        ClusterId, LeaseId, ReignId, SessionId,
        record::{Committed, Pending, Record, Recovered, Reservation, Unwritten},
        wire::{decode_record, encode_record},
    },
};

use crate::{clock::Truth, dice::Dice};

/// The leader's state directory, and the writer in front of it.
#[derive(Default)]
pub(crate) struct Disk {
    /// What is durable, as bytes.
    written: Vec<Vec<u8>>,
    /// The batch that is being written, and when that is done.
    batch: Option<(Truth, Vec<Pending>)>,
    /// What goes with the next batch.
    queue: VecDeque<Pending>,
    /// Sessions that are marked as those of the leader's own process.
    marked: BTreeSet<SessionId>,
    /// Until then it has no room for what clients add.
    pub(crate) full_until: Truth,
    pub(crate) known: Known,
}

/// What became of a record.
pub(crate) enum Answer {
    /// It is durable: with the lease that it takes away, if it does.
    Committed(Committed, Option<LeaseId>),
    Unwritten(Unwritten),
}

/// What the durable records say, for the rules.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) epoch: u32,
    /// Every epoch, and its reign.
    pub(crate) epochs: Vec<(u32, ReignId)>,
    /// The last epoch that a reign took above another history.
    pub(crate) raised_above: u32,
    /// By how much reigns have lifted their epochs.
    pub(crate) lifted: u32,
    pub(crate) opened: BTreeSet<SessionId>,
    pub(crate) ended: BTreeSet<SessionId>,
    pub(crate) revoked: BTreeSet<LeaseId>,
    /// Leases that were broken.
    pub(crate) broken: BTreeSet<LeaseId>,
    pub(crate) reserved: BTreeMap<Name, Reservation>,
    /// Reservations that have ended, and one that was written again behind its end.
    unreserved: BTreeSet<(Name, Token)>,
    pub(crate) written_behind: Option<(Name, Token)>,
}

impl Disk {
    pub(crate) fn queue(&mut self, record: Pending) {
        self.queue.push_back(record);
    }

    /// Begins a batch of all that waits, if none is being written; `took` is how long it takes.
    /// Answers when to look again.
    pub(crate) fn begin(&mut self, now: Truth, took: impl FnOnce() -> Truth) -> Option<Truth> {
        if self.batch.is_some() || self.queue.is_empty() {
            return None;
        }
        let done = now + took();
        self.batch = Some((done, self.queue.drain(..).collect()));
        Some(done)
    }

    /// What became of the batch that is done by now.
    pub(crate) fn finish(&mut self, now: Truth) -> Vec<Answer> {
        match self.batch.take_if(|(done, _)| *done <= now) {
            None => Vec::new(),
            Some((_, batch)) => {
                batch.into_iter().map(|pending| self.commit(pending, now)).collect()
            }
        }
    }

    /// The write fails, or the writer is dead at once: of the batch some may have reached the
    /// disk, in its order, and no client was told.
    pub(crate) fn lose_power(&mut self, dice: &mut Dice, now: Truth) {
        self.queue.clear();
        if let Some((_, batch)) = self.batch.take() {
            let reached = dice.below(batch.len() as u64 + 1) as usize;
            for pending in batch.into_iter().take(reached) {
                self.commit(pending, now);
            }
        }
    }

    /// The writer ends in good order: everything is written first.
    pub(crate) fn flush(&mut self, now: Truth) {
        let batch = self.batch.take().map_or(Vec::new(), |(_, batch)| batch);
        let rest: Vec<_> = self.queue.drain(..).collect();
        for pending in batch.into_iter().chain(rest) {
            self.commit(pending, now);
        }
    }

    fn commit(&mut self, pending: Pending, now: Truth) -> Answer {
        if now < self.full_until && pending.record().may_be_refused() {
            return Answer::Unwritten(pending.unwritten());
        }
        let lost = match *pending.record() {
            Record::LeaseRevoked { lease, .. } => Some(lease),
            _ => None,
        };
        self.write(pending.record());
        Answer::Committed(pending.committed(), lost)
    }

    /// What a new reign finds.
    pub(crate) fn recover(&mut self) -> Recovered {
        self.marked.clear();
        let mut recovered = Recovered::new(ClusterId(7));
        for bytes in &self.written {
            recovered.remember(&decode_record(bytes).expect("what was written can be read"));
        }
        recovered
    }

    /// The leader ends and its process goes on: its sessions are not to be taken for dead.
    pub(crate) fn unmark(&mut self) {
        let marked = std::mem::take(&mut self.marked);
        for (session, open) in self.recover().sessions {
            if open.embedded && marked.contains(&session) {
                let (proof, time_to_live, bound) = (open.proof, open.time_to_live, open.bound);
                let embedded = false;
                self.write(&Record::SessionOpened {
                    session,
                    proof,
                    time_to_live,
                    embedded,
                    bound,
                });
            }
        }
    }

    /// A copy of the directory takes its place: one of just before the last start, or of any time.
    pub(crate) fn restore(&mut self, dice: &mut Dice) {
        let is_start =
            |bytes: &Vec<u8>| matches!(decode_record(bytes), Ok(Record::TookOver { .. }));
        let last_start = self.written.iter().rposition(is_start).unwrap_or(0);
        let any = dice.below(self.written.len() as u64 + 1) as usize;
        self.written.truncate(if dice.percent(50) { last_start } else { any });
        self.known = Known::default();
        for bytes in &self.written {
            self.known.learn(&decode_record(bytes).expect("what was written can be read"));
        }
    }

    /// A leader is started on it and ends before a client comes.
    pub(crate) fn start_unseen(&mut self, dice: &mut Dice) {
        let Recovered { epoch, waits_for, .. } = self.recover();
        let reign = ReignId(dice.next());
        let epoch = epoch + 1;
        self.write(&Record::TookOver { epoch, reign, waits_for, starts_above: false });
    }

    pub(crate) fn write(&mut self, record: &Record) {
        if let Record::SessionOpened { session, embedded: true, .. } = *record {
            self.marked.insert(session);
        }
        self.known.learn(record);
        self.written.push(encode_record(record));
    }
}

impl Known {
    fn is_in(&mut self, epoch: u32, reign: ReignId) {
        self.epoch = epoch;
        self.epochs.push((epoch, reign));
    }

    fn learn(&mut self, record: &Record) {
        match *record {
            Record::TookOver { epoch, reign, .. } => self.is_in(epoch, reign),
            Record::EpochRaised { epoch, starts_above } => {
                let before = self.epoch;
                let (_, reign) = *self.epochs.last().expect("a leader reigns");
                self.is_in(epoch, reign);
                if starts_above {
                    self.raised_above = epoch;
                }
                self.lifted += epoch - before;
            }
            Record::Waited => {}
            Record::SessionOpened { session, .. } => {
                self.ended.remove(&session);
                self.opened.insert(session);
            }
            Record::SessionEnded { session } => drop(self.ended.insert(session)),
            Record::LeaseRevoked { lease, why, .. } => {
                self.revoked.insert(lease);
                if why == LostReason::Broken {
                    self.broken.insert(lease);
                }
            }
            Record::Reserved { ref name, reservation } => {
                let entry = (name.clone(), reservation.token);
                if self.unreserved.contains(&entry) {
                    self.written_behind = Some(entry);
                }
                self.reserved.insert(name.clone(), reservation);
            }
            Record::ReservationEnded { ref name, token } => {
                self.reserved.remove(name);
                self.unreserved.insert((name.clone(), token));
            }
        }
    }
}

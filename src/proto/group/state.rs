//! What the log applies to: a journal's head and records. Every condition is evaluated here, on the state
//! that all entries before it have made, so every member answers an entry alike.

use std::collections::BTreeMap;
use std::time::Duration;

use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};

use super::entry::GroupCommand;
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        ClusterId, LeaseId, ReignId,
        history::History,
        journal::{
            Appended, JournalAnswer, JournalHead, ReignAttempt, ReignKey, ReignRenewal, Stamp,
            TakeOver, Took,
        },
        mistake::{Mistake, planted},
        record::{OpenSession, Record, Recovered, Reservation, Written},
    },
};

/// A journal as a group keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupState {
    reign: Option<ReignKey>,
    lasts: Duration,
    stamp: Stamp,
    /// The number of the reign's last batch.
    number: u64,
    address: Option<String>,
    recovered: Recovered,
    is_made: bool,
}

impl GroupState {
    /// That of a group that was just made.
    pub(super) fn new(cluster: ClusterId) -> GroupState {
        GroupState {
            reign: None,
            lasts: Duration::ZERO,
            stamp: Stamp::default(),
            number: 0,
            address: None,
            recovered: Recovered::new(cluster),
            is_made: false,
        }
    }

    /// The head.
    pub fn head(&self) -> JournalHead {
        JournalHead {
            cluster: self.recovered.cluster,
            reign: self.reign,
            lasts: self.lasts,
            stamp: self.stamp,
            epoch: self.recovered.epoch,
            waits_for: self.recovered.waits_for,
            address: self.address.clone(),
        }
    }

    /// The reign that it is in.
    pub(super) fn reign(&self) -> Option<ReignKey> {
        self.reign
    }

    /// The records, as one that takes over finds them.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Whether every member has had the log once: before that the journal is not used.
    pub fn is_made(&self) -> bool {
        self.is_made
    }

    /// The number of the reign's last batch.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Applies one committed command, and answers it, if it is one that is answered.
    pub(super) fn apply(&mut self, command: &GroupCommand) -> Option<JournalAnswer> {
        Some(match command {
            GroupCommand::Made => {
                self.is_made = true;
                return None;
            }
            GroupCommand::TakeOver(attempt) => JournalAnswer::TakeOver(self.take_over(attempt)),
            GroupCommand::Renew(reign) => JournalAnswer::Renewal(match self.is_in(*reign) {
                true => ReignRenewal::Renewed(self.write()),
                false => ReignRenewal::Deposed(self.head()),
            }),
            GroupCommand::Append { reign, number, records } => {
                JournalAnswer::Appended(self.append(*reign, *number, records))
            }
            GroupCommand::Resign(reign) => {
                if self.is_in(*reign) {
                    self.write();
                    (self.reign, self.address) = (None, None);
                }
                JournalAnswer::Resigned
            }
        })
    }

    fn is_in(&self, reign: ReignKey) -> bool {
        self.reign == Some(reign)
    }

    /// Every write changes the stamp, to one that never was before.
    fn write(&mut self) -> Stamp {
        self.stamp.0 += 1;
        self.stamp
    }

    fn take_over(&mut self, attempt: &ReignAttempt) -> TakeOver {
        if self.stamp != attempt.seen && !planted(Mistake::ConditionAtProposal) {
            return TakeOver::Raced(self.head());
        }
        let before = self.recovered.clone();
        let stamp = self.write();
        (self.reign, self.number) = (Some(attempt.reign), 0);
        (self.lasts, self.address) = (attempt.lasts, attempt.address.clone());
        self.recovered.remember(&attempt.took_over);
        let written = Written::committed(Vec::new());
        TakeOver::Took(Box::new(Took { stamp, before, written }))
    }

    fn append(&mut self, reign: ReignKey, number: u64, records: &[Record]) -> Appended {
        if !self.is_in(reign) {
            return Appended::Deposed(self.head());
        }
        if number == self.number && number > 0 {
            // Its answer was lost.
            return Appended::Committed(self.stamp, Written::committed(Vec::new()));
        }
        if number != self.number + 1 {
            return Appended::Deposed(self.head());
        }
        for record in records {
            self.remember(record);
        }
        self.number = number;
        Appended::Committed(self.write(), Written::committed(Vec::new()))
    }
}

impl GroupState {
    /// As other journals, it forgets the oldest of too many losses of one session.
    fn remember(&mut self, record: &Record) {
        self.recovered.remember(record);
        if let Record::LeaseRevoked { session, .. } = record
            && let Some(open) = self.recovered.sessions.get_mut(session)
        {
            while open.revoked.len() > REVOKED_PER_SESSION_MAX {
                open.revoked.pop_first();
            }
        }
    }
}

/// Of each session's losses the last so many are kept.
const REVOKED_PER_SESSION_MAX: usize = 1024;

impl Encode for GroupState {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let GroupState { reign, lasts, stamp, number, address, recovered, is_made } = self;
        (is_made, reign, lasts, stamp, number, address).encode(encoder)?;
        let Recovered { cluster, epoch, waits_for, history, sessions, reservations } = recovered;
        let reigns: Vec<(u32, ReignId)> = history.reigns().collect();
        (cluster, epoch, waits_for, history.judged_from(), reigns).encode(encoder)?;
        (sessions.len() as u64).encode(encoder)?;
        for (&session, open) in sessions {
            let &OpenSession { proof, time_to_live, embedded, bound, ref revoked } = open;
            Record::SessionOpened { session, proof, time_to_live, embedded, bound }
                .encode(encoder)?;
            revoked.encode(encoder)?;
        }
        (reservations.len() as u64).encode(encoder)?;
        for (name, &reservation) in reservations {
            Record::Reserved { name: name.clone(), reservation }.encode(encoder)?;
        }
        Ok(())
    }
}

impl<C> Decode<C> for GroupState {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (is_made, reign, lasts, stamp, number, address) = Decode::<C>::decode(decoder)?;
        let (cluster, epoch, waits_for, judged_from, reigns): HistoryWay =
            Decode::<C>::decode(decoder)?;
        let mut recovered = Recovered {
            epoch,
            waits_for,
            history: History::found(reigns, judged_from),
            ..Recovered::new(cluster)
        };
        for _ in 0..<u64 as Decode<C>>::decode(decoder)? {
            let opened: Record = Decode::<C>::decode(decoder)?;
            let revoked: BTreeMap<LeaseId, LostReason> = Decode::<C>::decode(decoder)?;
            let Record::SessionOpened { session, proof, time_to_live, embedded, bound } = opened
            else {
                return Err(DecodeError::Other("no session"));
            };
            let open = OpenSession { proof, time_to_live, embedded, bound, revoked };
            recovered.sessions.insert(session, open);
        }
        for _ in 0..<u64 as Decode<C>>::decode(decoder)? {
            let (name, reservation): (Name, Reservation) = match Decode::<C>::decode(decoder)? {
                Record::Reserved { name, reservation } => (name, reservation),
                _ => return Err(DecodeError::Other("no reservation")),
            };
            recovered.reservations.insert(name, reservation);
        }
        Ok(GroupState { reign, lasts, stamp, number, address, recovered, is_made })
    }
}
bincode::impl_borrow_decode!(GroupState);

type HistoryWay = (ClusterId, u32, Option<Duration>, u32, Vec<(u32, ReignId)>);

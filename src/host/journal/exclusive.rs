//! The state directory as the journal of a reign: no other leader has it while this process holds its
//! lock, so there is nothing to prove, and an error is final.

use std::io;

use parking_lot::Mutex;

use super::file::Journal;
use crate::proto::{
    journal::{
        Appended, JournalHead, JournalTerms, JournalTrouble, ReignAttempt, ReignJournal, ReignKey,
        ReignRenewal, Stamp, TakeOver, Took,
    },
    record::{Record, Recovered, Written},
};

/// A journal in a state directory, which is this process's for as long as it lives.
pub(in crate::host) struct ExclusiveJournal {
    inner: Mutex<ExclusiveState>,
}

struct ExclusiveState {
    journal: Journal,
    head: JournalHead,
    /// What the reigns before left, until one begins.
    recovered: Option<Recovered>,
    /// The number of the reign's last batch.
    number: u64,
}

impl ExclusiveJournal {
    /// The journal that was opened, with what was found in it.
    pub(in crate::host) fn new(journal: Journal, recovered: Recovered) -> ExclusiveJournal {
        let head = JournalHead {
            cluster: recovered.cluster,
            reign: None, // the lock proves that the last one is over
            lasts: std::time::Duration::ZERO,
            stamp: Stamp(journal.number()),
            epoch: recovered.epoch,
            waits_for: recovered.waits_for,
            address: None,
        };
        let inner = ExclusiveState { journal, head, recovered: Some(recovered), number: 0 };
        ExclusiveJournal { inner: Mutex::new(inner) }
    }
}

impl ReignJournal for ExclusiveJournal {
    fn terms(&self) -> JournalTerms {
        JournalTerms { is_exclusive: true, batch_max: usize::MAX, renewals: 1 }
    }

    fn read(&self) -> Result<JournalHead, JournalTrouble> {
        Ok(self.inner.lock().head.clone())
    }

    fn take_over(&self, attempt: &ReignAttempt) -> Result<TakeOver, JournalTrouble> {
        let mut inner = self.inner.lock();
        let is_seen = inner.head.stamp == attempt.seen && inner.head.reign.is_none();
        let Some(before) = inner.recovered.take_if(|_| is_seen) else {
            return Ok(TakeOver::Raced(inner.head.clone()));
        };
        let refused = inner.commit(std::slice::from_ref(&attempt.took_over))?;
        inner.head.reign = Some(attempt.reign);
        let written = Written::committed(refused);
        Ok(TakeOver::Took(Box::new(Took { stamp: inner.head.stamp, before, written })))
    }

    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Result<Appended, JournalTrouble> {
        let mut inner = self.inner.lock();
        if inner.head.reign != Some(reign) || number != inner.number + 1 {
            return Ok(Appended::Deposed(inner.head.clone()));
        }
        let refused = inner.commit(records)?;
        inner.number = number;
        Ok(Appended::Committed(inner.head.stamp, Written::committed(refused)))
    }

    fn renew(&self, reign: ReignKey) -> Result<ReignRenewal, JournalTrouble> {
        let inner = self.inner.lock();
        Ok(match inner.head.reign == Some(reign) {
            true => ReignRenewal::Renewed(inner.head.stamp),
            false => ReignRenewal::Deposed(inner.head.clone()),
        })
    }

    fn resign(&self, reign: ReignKey) -> Result<(), JournalTrouble> {
        self.inner.lock().head.reign.take_if(|own| *own == reign);
        Ok(())
    }
}

impl ExclusiveState {
    fn commit(&mut self, records: &[Record]) -> Result<Vec<usize>, JournalTrouble> {
        let failed = |error: io::Error| JournalTrouble::Failed(error.to_string());
        let refused = self.journal.commit_all(records).map_err(failed)?;
        self.head.stamp = Stamp(self.journal.number());
        Ok(refused)
    }
}

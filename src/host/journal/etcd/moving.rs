//! Moving a journal from or to an etcd.
//!
//! etcd takes so many operations in a transaction, so a journal that is moved here comes in several, its
//! stamp last: before that it is none. Each is let in only for the move that began last.

use etcd_client::{Compare, CompareOp, GetOptions, KvClient, Txn, TxnOp};

use super::{EngineFault, EtcdJournal, EtcdKeys, etcd_fault};
use crate::{
    error::{LockError, LockErrorKind, Result},
    host::{
        journal::{
            MOVING_TAKES,
            entries::FoundEntries,
            moving::{JournalSurvey, MovableStore},
        },
        random,
    },
    proto::journal::{JournalTrouble, Stamp},
};

/// How many operations go in one transaction: etcd allows 128.
const OPERATIONS: usize = 100;

impl EtcdJournal {
    /// A connection of its own; each is to another address.
    fn reach(&self) -> Result<KvClient> {
        self.in_time(async {
            let mut tries = self.endpoints.len();
            loop {
                tries -= 1;
                match self.connect().await {
                    Err(_) if tries > 0 => {}
                    connected => break connected.map_err(EngineFault::into_error),
                }
            }
        })
    }

    /// One step of a move: each has its time, however many there are.
    fn in_time<T>(&self, step: impl Future<Output = Result<T>>) -> Result<T> {
        self.ways.run(MOVING_TAKES, step).unwrap_or_else(|| {
            let text =
                format!("{} did not answer in time; look there, and move it again", self.shown());
            Err(EngineFault::Trouble(text).into_error())
        })
    }

    fn damaged_here(&self, trouble: JournalTrouble) -> LockError {
        let (JournalTrouble::Failed(text) | JournalTrouble::Unknown(text)) = trouble;
        LockError::new(LockErrorKind::Damaged, format!("the journal {}: {text}", self.shown()))
    }

    fn write(&self, client: &mut KvClient, when: Vec<Compare>, then: Vec<TxnOp>) -> Result<bool> {
        self.in_time(async {
            let written = client.txn(Txn::new().when(when).and_then(then)).await;
            let written =
                written.map_err(|error| etcd_fault(&self.url.shown(), &error).into_error())?;
            Ok(written.succeeded())
        })
    }

    /// Puts all entries where there is no journal, and `last` behind them.
    fn put_all(
        &self,
        entries: &FoundEntries,
        last: impl FnOnce(&EtcdKeys) -> Vec<TxnOp>,
    ) -> Result<()> {
        let records = entries.records()?;
        let number = format!("{:032x}", random());
        let is_none = || Compare::version(self.keys.stamp(), CompareOp::Equal, 0);
        let is_ours = || Compare::value(self.keys.filling(), CompareOp::Equal, number.clone());
        let meanwhile =
            || self.url.refuse("another journal was made there, or is being moved there");
        let mut client = self.reach()?;
        let mut first = self.keys.sweep();
        first.push(TxnOp::put(self.keys.filling(), number.clone(), None));
        if !self.write(&mut client, vec![is_none()], first)? {
            return Err(meanwhile());
        }
        let all = self.keys.fill(entries, &records);
        let mut batches: Vec<_> = all.chunks(OPERATIONS).map(<[TxnOp]>::to_vec).collect();
        batches.push(last(&self.keys));
        for batch in batches {
            if !self.write(&mut client, vec![is_none(), is_ours()], batch)? {
                return Err(meanwhile());
            }
        }
        Ok(())
    }
}

impl MovableStore for EtcdJournal {
    fn survey(&self) -> Result<Option<JournalSurvey>> {
        let mut client = self.reach()?;
        let found = self.in_time(async {
            let options = GetOptions::new().with_prefix();
            let found = client.get(self.keys.prefix(), Some(options)).await;
            found.map_err(|error| etcd_fault(&self.url.shown(), &error).into_error())
        })?;
        let head = self.keys.read_survey(found.kvs());
        let Some((reign, lasts, stamp, moved_to)) =
            head.map_err(|trouble| self.damaged_here(trouble))?
        else {
            return Ok(None);
        };
        let entries = self.keys.read_all(found.kvs());
        let entries = entries.map_err(|trouble| self.damaged_here(trouble))?;
        Ok(Some(JournalSurvey { reign, lasts, stamp, moved_to, entries }))
    }

    fn mark_moved(&self, seen: Stamp, to: &str) -> Result<bool> {
        let is_seen = Compare::mod_revision(self.keys.stamp(), CompareOp::Equal, seen.0 as i64);
        let is_here = Compare::version(self.keys.moved(), CompareOp::Equal, 0);
        let then = self.keys.mark_moved(to);
        self.write(&mut self.reach()?, vec![is_seen, is_here], then)
    }

    fn prepare(&self, entries: &FoundEntries) -> Result<()> {
        // All of it is written as it will be, and swept in the place of getting its head.
        self.put_all(entries, |keys| {
            let mut last = keys.sweep();
            last.push(TxnOp::delete(keys.filling(), None));
            last
        })
    }

    fn fill(&self, entries: &FoundEntries) -> Result<()> {
        self.put_all(entries, |keys| keys.fill_head(entries))
    }
}

//! Moving a journal from or to an etcd.
//!
//! etcd takes so many operations in a transaction, so a journal that is moved here comes in several, its
//! stamp last: before that it is none. `head/filling` says of which cluster it is, and which move of it
//! began last: each transaction is let in only for that one.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KvClient, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use super::{EngineFault, EtcdJournal, etcd_fault, keys::FillingKey, more_telling};
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
    proto::{
        ClusterId,
        journal::{JournalTrouble, Stamp},
    },
};

/// How many operations go in one transaction: etcd allows 128.
const OPERATIONS: usize = 100;

/// How long an address may take to show that it serves.
const LOOK_TAKES: Duration = Duration::from_secs(4);

/// A move that writes here, by this process.
pub(super) struct BegunMove {
    /// The value of `head/filling`.
    marker: String,
    /// There was nothing here before it.
    is_first: bool,
}

impl EtcdJournal {
    /// A connection to the first address that answers. The library connects when something is asked, so
    /// that something is.
    fn reach(&self) -> Result<KvClient> {
        let mut trouble = None;
        for _ in &self.endpoints {
            let answered = self.ways.run(LOOK_TAKES, async {
                let mut client = self.connect().await.map_err(EngineFault::into_error)?;
                let options = GetOptions::new().with_count_only();
                client
                    .get(self.keys.stamp(), Some(options))
                    .await
                    .map_err(|error| self.failed(&error))?;
                Ok(client)
            });
            match answered.unwrap_or_else(|| Err(self.is_silent(LOOK_TAKES))) {
                Ok(client) => {
                    // The next connection is to the same one.
                    self.next.fetch_sub(1, Relaxed);
                    return Ok(client);
                }
                Err(error) => trouble = Some(more_telling(trouble, error)),
            }
        }
        Err(trouble.unwrap_or_else(|| self.is_silent(LOOK_TAKES)))
    }

    fn failed(&self, error: &etcd_client::Error) -> LockError {
        etcd_fault(&self.url.shown(), error).into_error()
    }

    fn is_silent(&self, limit: Duration) -> LockError {
        let text = format!(
            "{} did not answer within {limit:.1?}; look there, and move it again",
            self.shown()
        );
        EngineFault::Trouble(text).into_error()
    }

    /// One step of a move: each has its time, however many there are.
    fn in_time<T>(&self, step: impl Future<Output = Result<T>>) -> Result<T> {
        self.ways.run(MOVING_TAKES, step).unwrap_or_else(|| Err(self.is_silent(MOVING_TAKES)))
    }

    fn damaged_here(&self, trouble: JournalTrouble) -> LockError {
        let (JournalTrouble::Failed(text) | JournalTrouble::Unknown(text)) = trouble;
        LockError::new(LockErrorKind::Damaged, format!("the journal {}: {text}", self.shown()))
    }

    fn write_once(&self, client: &mut KvClient, transaction: Txn) -> Result<TxnResponse> {
        self.in_time(async { client.txn(transaction).await.map_err(|error| self.failed(&error)) })
    }

    /// Writes what may be written twice: where no answer comes, by the next address that answers.
    fn write(&self, client: &mut KvClient, transaction: &Txn) -> Result<TxnResponse> {
        for _ in &self.endpoints {
            match self.write_once(client, transaction.clone()) {
                Err(error) if error.is_unreachable() => *client = self.reach()?,
                written => return written,
            }
        }
        self.write_once(client, transaction.clone())
    }

    /// All that lies under this.
    fn read_all(&self, prefix: impl Into<Vec<u8>>) -> Result<GetResponse> {
        let mut client = self.reach()?;
        self.in_time(async {
            let found = client.get(prefix, Some(GetOptions::new().with_prefix())).await;
            found.map_err(|error| self.failed(&error))
        })
    }

    fn is_none(&self) -> Compare {
        Compare::version(self.keys.stamp(), CompareOp::Equal, 0)
    }

    fn is_of_move(&self, marker: &str) -> Compare {
        Compare::value(self.keys.filling(), CompareOp::Equal, marker)
    }

    fn is_made_meanwhile(&self) -> LockError {
        self.url.refuse("another journal was made there, or is being moved there")
    }

    /// Says that this cluster's journal is being moved here, where there is nothing, or where a move of
    /// the same cluster was interrupted.
    fn begin_move(&self, client: &mut KvClient, cluster: ClusterId) -> Result<BegunMove> {
        let marker = format!("{:032x} {:032x}", cluster.0, random());
        let put = TxnOp::put(self.keys.filling(), marker.clone(), None);
        let is_free = Txn::new().when(self.keys.are_free()).and_then([put.clone()]);
        // What an earlier try of the same writes has begun is gone on with.
        for _ in 0..2 {
            let begun = self.write(client, &is_free.clone().or_else(self.keys.look_for_any()))?;
            if begun.succeeded() {
                return Ok(BegunMove { marker, is_first: true });
            }
            let found = self.found_instead(&begun);
            let FillingKey { value, revision } = match found {
                FoundInstead::Filling(filling) => filling,
                FoundInstead::Journal => return Err(self.is_made_meanwhile()),
                FoundInstead::Foreign(key) => return Err(self.is_in_the_way(&key)),
            };
            let is_ours = value.split(' ').next() == marker.split(' ').next();
            if !is_ours {
                return Err(self.url.refuse(format_args!(
                    "the journal of another cluster was being moved to the prefix {:?}, and that was \
                     interrupted ({} is {value:?}): move that one there again, or choose another place",
                    self.keys.prefix(),
                    self.keys.filling()
                )));
            }
            // Not by its value: what is written late is not to sweep what comes after it.
            let is_same = Compare::mod_revision(self.keys.filling(), CompareOp::Equal, revision);
            let mut then = self.keys.sweep();
            then.push(put.clone());
            let transaction = Txn::new().when([self.is_none(), is_same]).and_then(then);
            if self.write(client, &transaction)?.succeeded() {
                return Ok(BegunMove { marker, is_first: false });
            }
        }
        Err(self.is_made_meanwhile())
    }

    pub(super) fn found_instead(&self, answer: &TxnResponse) -> FoundInstead {
        let mut foreign = None;
        for found in answer.op_responses() {
            let TxnOpResponse::Get(found) = found else { continue };
            if let Some(filling) = self.keys.read_filling(found.kvs()) {
                return FoundInstead::Filling(filling);
            }
            if found.kvs().iter().any(|known| known.key() == self.keys.stamp().as_bytes()) {
                return FoundInstead::Journal;
            }
            let first = found.kvs().first();
            foreign = foreign
                .or_else(|| first.map(|known| String::from_utf8_lossy(known.key()).into_owned()));
        }
        FoundInstead::Foreign(foreign.unwrap_or_default())
    }

    /// Writes all but the head, under a marker of this move.
    fn put_entries(&self, client: &mut KvClient, entries: &FoundEntries) -> Result<()> {
        let records = entries.records()?;
        let begun = self.begin_move(client, entries.cluster)?;
        let conditions = [self.is_none(), self.is_of_move(&begun.marker)];
        *self.moving.lock() = Some(begun);
        for batch in self.keys.fill(entries, &records).chunks(OPERATIONS) {
            let transaction = Txn::new().when(conditions.clone()).and_then(batch);
            if !self.write(client, &transaction)?.succeeded() {
                return Err(self.is_made_meanwhile());
            }
        }
        Ok(())
    }

    /// Makes what this process has written a journal. Whether it was still there.
    fn put_head(&self, client: &mut KvClient, entries: &FoundEntries) -> Result<bool> {
        let Some(marker) = self.moving.lock().as_ref().map(|begun| begun.marker.clone()) else {
            return Ok(false);
        };
        let conditions = [self.is_none(), self.is_of_move(&marker)];
        let transaction = Txn::new().when(conditions).and_then(self.keys.fill_head(entries));
        Ok(self.write(client, &transaction)?.succeeded())
    }

    /// Whether its head is there, by a write of which no answer came, or by the same move elsewhere.
    fn is_filled(&self, cluster: ClusterId) -> Result<bool> {
        match self.survey()? {
            Some(survey) if survey.entries.cluster == cluster => Ok(true),
            Some(_) => Err(self.is_made_meanwhile()),
            None => Ok(false),
        }
    }
}

/// What there is where there was to be nothing.
pub(super) enum FoundInstead {
    Journal,
    Filling(FillingKey),
    /// A key that is none of these.
    Foreign(String),
}

impl MovableStore for EtcdJournal {
    fn survey(&self) -> Result<Option<JournalSurvey>> {
        let found = self.read_all(self.keys.prefix())?;
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
        let transaction = Txn::new().when([is_seen, is_here]).and_then(self.keys.mark_moved(to));
        // Once: a second try that finds it marked could not tell by which move.
        Ok(self.write_once(&mut self.reach()?, transaction)?.succeeded())
    }

    fn prepare(&self, entries: &FoundEntries) -> Result<()> {
        self.put_entries(&mut self.reach()?, entries)
    }

    fn take_back(&self) -> Result<()> {
        let Some(BegunMove { marker, is_first }) = self.moving.lock().take() else { return Ok(()) };
        let mut then = self.keys.sweep();
        if is_first {
            then.push(TxnOp::delete(self.keys.filling(), None));
        }
        // Deletions alone: an etcd without room takes those.
        let conditions = [self.is_none(), self.is_of_move(&marker)];
        self.write(&mut self.reach()?, &Txn::new().when(conditions).and_then(then)).map(drop)
    }

    fn fill(&self, entries: &FoundEntries) -> Result<()> {
        let mut client = self.reach()?;
        if self.put_head(&mut client, entries)? || self.is_filled(entries.cluster)? {
            return Ok(());
        }
        self.put_entries(&mut client, entries)?;
        match self.put_head(&mut client, entries)? || self.is_filled(entries.cluster)? {
            true => Ok(()),
            false => Err(self.is_made_meanwhile()),
        }
    }

    fn half_filled(&self) -> Result<Option<String>> {
        let found = self.read_all(self.keys.head())?;
        Ok(self.keys.is_half_filled(found.kvs()).then(|| self.says_half_filled()))
    }
}

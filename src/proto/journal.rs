//! What a journal is to the reigns that follow each other in it: state that outlives its leader.
//!
//! One head says which reign it is in, and every write changes the head's stamp, to one that never
//! was before. Each operation but a read is one atomic, linearizable transaction with one condition,
//! and durable before it is answered. Nothing in it is a log: what has ended is deleted.
//!
//! | operation | condition | what it writes |
//! |---|---|---|
//! | `read` | none; what it answers may be stale | nothing |
//! | `take_over` | the stamp is the one that was seen | the reign, number 0, epoch + 1 and its history |
//! | `append` | the reign is mine, its number one less | the records, the number |
//! | `renew` | the reign is mine | nothing but the stamp |
//! | `resign` | the reign is mine | that there is no reign |
//!
//! `Deposed` and `Raced` are said only by a condition that was evaluated. All else is
//! [`JournalTrouble::Unknown`]: it may have happened, may happen much later, and proves nothing.

use std::{sync::Arc, time::Duration};

use super::{
    ClusterId, ReignId,
    record::{Record, Recovered, Written},
};

/// An attempt to reign, and the reign that comes of it: 128 random bits, drawn for each attempt.
/// Never a leader's name, and never an epoch, which is raised within a reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReignKey(pub u128);

impl ReignKey {
    /// The reign as clients know it.
    pub fn id(self) -> ReignId {
        ReignId(self.0 as u64)
    }
}

/// Which write was the journal's last. Every write gives it a higher one, and none repeats in the
/// cluster's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// The head of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalHead {
    pub cluster: ClusterId,
    /// The reign that it is in, unless the last one has resigned.
    pub reign: Option<ReignKey>,
    /// For how long that reign is believed without a renewal: L. A standby counts by this one.
    pub lasts: Duration,
    pub stamp: Stamp,
    pub epoch: u32,
    /// How long a reign waits for clients that the journal does not know.
    pub waits_for: Option<Duration>,
    /// Where clients find the reign, as it says.
    pub address: Option<String>,
}

/// What is written to take over.
#[derive(Clone, Debug, PartialEq)]
pub struct ReignAttempt {
    /// The condition: the journal's stamp is still this one.
    pub seen: Stamp,
    pub reign: ReignKey,
    pub lasts: Duration,
    pub address: Option<String>,
    /// The epoch that it starts above, if it does.
    pub epoch_above: Option<u32>,
    /// The reign's beginning, a [`Record::TookOver`]: made of the head with that stamp.
    pub took_over: Record,
}

impl ReignAttempt {
    /// An attempt to follow what this head says. `None`: the epochs are used up.
    pub fn after(
        head: &JournalHead,
        reign: ReignKey,
        lasts: Duration,
        address: Option<String>,
        epoch_above: Option<u32>,
    ) -> Option<ReignAttempt> {
        let before = (head.epoch, head.waits_for);
        let took_over = Record::take_over(before, reign.id(), epoch_above)?;
        Some(ReignAttempt { seen: head.stamp, reign, lasts, address, epoch_above, took_over })
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum TakeOver {
    Took(Box<Took>),
    /// The stamp was another by then.
    Raced(JournalHead),
}

/// The journal is in this reign now.
#[derive(Clone, Debug, PartialEq)]
pub struct Took {
    pub stamp: Stamp,
    /// What the reigns before it have left, as the same transaction found it: without what that
    /// itself wrote.
    pub before: Recovered,
    /// The beginning of the reign is durable.
    pub written: Written,
}

/// What became of a batch of records.
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// It is durable, by this append or by an earlier one of the same number.
    Committed(Stamp, Written),
    Deposed(JournalHead),
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq)]
pub enum ReignRenewal {
    Renewed(Stamp),
    Deposed(JournalHead),
}

/// Why an operation has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalTrouble {
    /// It may have happened, or may yet happen: a timeout, a broken connection, a store's error.
    Unknown(String),
    /// The journal is of no more use, and no other leader can have it meanwhile.
    Failed(String),
}

/// What holds for all operations of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalTerms {
    /// No other leader can have it while this process does: it is proof of reign by itself, nothing is
    /// renewed, and an error is final.
    pub is_exclusive: bool,
    /// How many records an append may have.
    pub batch_max: usize,
    /// How often a reign renews itself within the time that it lasts without a proof.
    pub renewals: u32,
}

/// Takes an operation's answer, on whichever thread has it; it does not block.
pub type JournalTold = Box<dyn FnOnce(JournalAnswer) + Send>;

/// A journal that is kept in the leader's own process: it is read at once, and for anything else it can be
/// asked by a thread that goes on.
pub trait PromptJournal: Send + Sync {
    /// The head, as it is or was.
    fn read_at_once(&self) -> JournalAnswer;

    /// Begins an operation. `told` is called once: before this returns, or later.
    fn begin(&self, operation: JournalOperation, told: JournalTold);
}

/// A journal. Its operations block, and may be asked for by several threads at once.
pub trait ReignJournal: Send + Sync {
    fn terms(&self) -> JournalTerms;

    /// The same journal, if it needs no thread that waits.
    fn prompt(self: Arc<Self>) -> Option<Arc<dyn PromptJournal>> {
        None
    }

    /// The head, as it is or was.
    fn read(&self) -> Result<JournalHead, JournalTrouble>;

    /// Begins a reign, if the stamp is still the one that was seen.
    fn take_over(&self, attempt: &ReignAttempt) -> Result<TakeOver, JournalTrouble>;

    /// Makes these records durable, all at once, as the reign's batch of this number; the first has
    /// number 1. A number that the reign's last batch has is answered as committed.
    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Result<Appended, JournalTrouble>;

    /// Proves the reign.
    fn renew(&self, reign: ReignKey) -> Result<ReignRenewal, JournalTrouble>;

    /// Ends the reign, if it is the journal's.
    fn resign(&self, reign: ReignKey) -> Result<(), JournalTrouble>;
}

/// One operation, as a reign asks for it.
#[derive(Clone, Debug)]
pub enum JournalOperation {
    Read,
    TakeOver(Arc<ReignAttempt>),
    Renew(ReignKey),
    Append { reign: ReignKey, number: u64, records: Arc<[Record]> },
    Resign(ReignKey),
}

/// Operations of one lane come one after the other, and wait for none of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Watching,
    Renewing,
    Writing,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalAnswer {
    Head(JournalHead),
    TakeOver(TakeOver),
    Renewal(ReignRenewal),
    Appended(Appended),
    Resigned,
    Trouble(JournalTrouble),
}

impl JournalOperation {
    /// The lane that it goes by.
    pub fn lane(&self) -> Lane {
        match self {
            JournalOperation::Read => Lane::Watching,
            JournalOperation::Renew(_) => Lane::Renewing,
            JournalOperation::TakeOver(_)
            | JournalOperation::Append { .. }
            | JournalOperation::Resign(_) => Lane::Writing,
        }
    }

    /// Its name, for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            JournalOperation::Read => "read",
            JournalOperation::TakeOver(_) => "take_over",
            JournalOperation::Renew(_) => "renew",
            JournalOperation::Append { .. } => "append",
            JournalOperation::Resign(_) => "resign",
        }
    }

    /// Asks a journal for it.
    pub fn perform(&self, journal: &dyn ReignJournal) -> JournalAnswer {
        let answer = match self {
            JournalOperation::Read => journal.read().map(JournalAnswer::Head),
            JournalOperation::TakeOver(attempt) => {
                journal.take_over(attempt).map(JournalAnswer::TakeOver)
            }
            JournalOperation::Renew(reign) => journal.renew(*reign).map(JournalAnswer::Renewal),
            JournalOperation::Append { reign, number, records } => {
                journal.append(*reign, *number, records).map(JournalAnswer::Appended)
            }
            JournalOperation::Resign(reign) => {
                journal.resign(*reign).map(|()| JournalAnswer::Resigned)
            }
        };
        answer.unwrap_or_else(JournalAnswer::Trouble)
    }
}

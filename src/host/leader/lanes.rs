//! The threads that wait for a journal, so that no renewal of a client's ever does.

use std::{
    collections::BTreeMap,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    host::net::bell::Bell,
    proto::{
        journal::{JournalAnswer, JournalOperation, JournalTrouble, Lane, ReignJournal},
        reign::OperationId,
    },
};

/// One thread for each lane: its operations come one after the other, and wait for none of another's.
pub(super) struct Lanes {
    lanes: BTreeMap<Lane, mpsc::Sender<(OperationId, JournalOperation)>>,
    answers: mpsc::Receiver<LaneAnswer>,
    threads: Vec<JoinHandle<()>>,
}

/// What the journal answered, and how long it took for that.
pub(super) struct LaneAnswer {
    pub(super) id: OperationId,
    pub(super) answer: JournalAnswer,
    /// Which operation it was, in a word.
    pub(super) operation: &'static str,
    pub(super) took: Duration,
}

impl Lanes {
    /// Each answer rings the bell.
    pub(super) fn start(
        journal: &Arc<dyn ReignJournal>,
        bell: Arc<impl AsRef<Bell> + Send + Sync + 'static>,
    ) -> std::io::Result<Lanes> {
        let (to_leader, answers) = mpsc::channel();
        let mut lanes = Lanes { lanes: BTreeMap::new(), answers, threads: Vec::new() };
        let wanted: &[(Lane, &str)] = match journal.terms().is_exclusive {
            true => &[(Lane::Writing, "tierlock-journal")],
            false => &[
                (Lane::Writing, "tierlock-journal"),
                (Lane::Renewing, "tierlock-renew"),
                (Lane::Watching, "tierlock-watch"),
            ],
        };
        for (lane, name) in wanted {
            let (operations, from_leader) = mpsc::channel::<(OperationId, JournalOperation)>();
            let (journal, to_leader, bell) = (journal.clone(), to_leader.clone(), bell.clone());
            let thread = thread::Builder::new().name((*name).into()).spawn(move || {
                while let Ok((id, operation)) = from_leader.recv() {
                    let begun = Instant::now();
                    let answer = perform(&operation, &*journal);
                    let (operation, took) = (operation.as_str(), begun.elapsed());
                    if to_leader.send(LaneAnswer { id, answer, operation, took }).is_err() {
                        break;
                    }
                    (*bell).as_ref().ring();
                }
            })?;
            lanes.lanes.insert(*lane, operations);
            lanes.threads.push(thread);
        }
        Ok(lanes)
    }

    pub(super) fn send(&self, id: OperationId, operation: JournalOperation) {
        if let Some(lane) = self.lanes.get(&operation.lane()) {
            // A thread that is gone has been told to end.
            let _ = lane.send((id, operation));
        }
    }

    /// An answer that has come.
    pub(super) fn poll(&self) -> Option<LaneAnswer> {
        self.answers.try_recv().ok()
    }

    /// The next answer, if it comes within this time.
    pub(super) fn wait(&self, limit: Duration) -> Option<LaneAnswer> {
        self.answers.recv_timeout(limit).ok()
    }
}

fn perform(operation: &JournalOperation, journal: &dyn ReignJournal) -> JournalAnswer {
    catch_unwind(AssertUnwindSafe(|| operation.perform(journal))).unwrap_or_else(|_| {
        let text = "the journal's thread has failed (a panic)".to_owned();
        JournalAnswer::Trouble(JournalTrouble::Failed(text))
    })
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // Each thread does what it was asked for; then the journal is free.
        drop(mem::take(&mut self.lanes));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

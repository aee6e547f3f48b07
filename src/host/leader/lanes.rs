//! The threads that wait for a journal, so that no renewal of a client's ever does. One in the leader's own
//! process is asked without them: on a busy machine each change of threads costs more than all the rest.

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
        journal::{
            JournalAnswer, JournalOperation, JournalTrouble, Lane, PromptJournal, ReignJournal,
        },
        reign::OperationId,
    },
};

/// One thread for each lane: its operations come one after the other, and wait for none of another's.
pub(super) struct Lanes {
    lanes: BTreeMap<Lane, mpsc::Sender<(OperationId, JournalOperation)>>,
    answers: mpsc::Receiver<LaneAnswer>,
    threads: Vec<JoinHandle<()>>,
    /// The journal, if it needs none of these threads.
    prompt: Option<(Arc<dyn PromptJournal>, AnswerSlot)>,
}

/// Where answers are put.
#[derive(Clone)]
struct AnswerSlot {
    to_leader: mpsc::Sender<LaneAnswer>,
    bell: Arc<dyn AsRef<Bell> + Send + Sync>,
}

impl AnswerSlot {
    /// Whether there is a leader yet that it is for.
    fn put(&self, answer: LaneAnswer) -> bool {
        let is_put = self.to_leader.send(answer).is_ok();
        (*self.bell).as_ref().ring();
        is_put
    }
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
        let prompt = journal.clone().prompt();
        let wanted: &[(Lane, &str)] = match journal.terms().is_exclusive {
            _ if prompt.is_some() => &[],
            true => &[(Lane::Writing, "tierlock-journal")],
            false => &[
                (Lane::Writing, "tierlock-journal"),
                (Lane::Renewing, "tierlock-renew"),
                (Lane::Watching, "tierlock-watch"),
            ],
        };
        let slot = AnswerSlot { to_leader, bell };
        let mut lanes = Lanes {
            lanes: BTreeMap::new(),
            answers,
            threads: Vec::new(),
            prompt: prompt.map(|journal| (journal, slot.clone())),
        };
        for (lane, name) in wanted {
            let (operations, from_leader) = mpsc::channel::<(OperationId, JournalOperation)>();
            let (journal, slot) = (journal.clone(), slot.clone());
            let thread = thread::Builder::new().name((*name).into()).spawn(move || {
                while let Ok((id, operation)) = from_leader.recv() {
                    if !slot.put(perform(id, &operation, &*journal)) {
                        break;
                    }
                }
            })?;
            lanes.lanes.insert(*lane, operations);
            lanes.threads.push(thread);
        }
        Ok(lanes)
    }

    /// Has the operation done; its answer, if that waits for nothing.
    pub(super) fn send(&self, id: OperationId, operation: JournalOperation) -> Option<LaneAnswer> {
        let (name, begun) = (operation.as_str(), Instant::now());
        let answered =
            move |answer| LaneAnswer { id, answer, operation: name, took: begun.elapsed() };
        match &self.prompt {
            Some((journal, _)) if operation.lane() == Lane::Watching => {
                return Some(answered(journal.read_at_once()));
            }
            Some((journal, slot)) => {
                let slot = slot.clone();
                // A leader that is gone needs no answer.
                let told = move |answer| {
                    let _ = slot.put(answered(answer));
                };
                journal.begin(operation, Box::new(told));
            }
            None => {
                if let Some(lane) = self.lanes.get(&operation.lane()) {
                    // A thread that is gone has been told to end.
                    let _ = lane.send((id, operation));
                }
            }
        }
        None
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

fn perform(
    id: OperationId,
    operation: &JournalOperation,
    journal: &dyn ReignJournal,
) -> LaneAnswer {
    let begun = Instant::now();
    let answer = catch_unwind(AssertUnwindSafe(|| operation.perform(journal)));
    let answer = answer.unwrap_or_else(|_| {
        let text = "the journal's thread has failed (a panic)".to_owned();
        JournalAnswer::Trouble(JournalTrouble::Failed(text))
    });
    LaneAnswer { id, answer, operation: operation.as_str(), took: begun.elapsed() }
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

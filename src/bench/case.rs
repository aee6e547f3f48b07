//! The words of the bench: cases, and the label of a row.

use serde::{Serialize, Serializer};
use tierlock::Scope;

/// A situation that locks are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// The word of the JSON.
    pub(crate) word: &'static str,
    /// The same for people; `{}` stands for the number of callers.
    pub(crate) title: &'static str,
    /// Whether it is staged, one event at a time, and so has no throughput and no shares.
    pub(crate) is_staged: bool,
}

impl Case {
    /// Lock and unlock without another caller.
    pub(crate) const QUIET: Case = Case::new("quiet", "quiet");
    /// Threads of one process, empty sections, no pause between.
    pub(crate) const THREADS: Case = Case::new("threads", "{} threads, empty");
    /// Two threads of one process, sections of 200 µs, no pause between.
    pub(crate) const THREADS_200US: Case = Case::new("threads_200us", "{} threads, 200 µs");
    /// Processes that all want one lock, empty sections, no pause between.
    pub(crate) const PROCESSES_EMPTY: Case = Case::new("processes_empty", "{} processes, empty");
    /// Processes that all want one lock, sections of 200 µs, no pause between.
    pub(crate) const PROCESSES_200US: Case = Case::new("processes_200us", "{} processes, 200 µs");
    /// From one process's unlock to the waiting other's lock.
    pub(crate) const HANDOVER: Case = Case::staged("handover", "hand-over");
    /// From a holder's SIGKILL to the waiting other's lock.
    pub(crate) const HOLDER_KILLED: Case = Case::staged("holder_killed", "holder killed");
    /// Names made at run time, out of very many.
    pub(crate) const NAMES: Case = Case::new("names", "many names");
    /// One connection each, one name each.
    pub(crate) const CONNECTIONS_32: Case = Case::new("connections_32", "32 connections");
    /// One connection for all, one name each.
    pub(crate) const TASKS_256: Case = Case::new("tasks_256", "256 tasks");
    /// One connection each, one name for all.
    pub(crate) const ONE_NAME_8: Case = Case::new("one_name_8", "8 on one name");
    /// Lock and unlock with a lease that no other session wants.
    pub(crate) const KEPT: Case = Case::new("kept", "kept lease");
    /// One connection each; one locking of a hundred is of another client's name.
    pub(crate) const REMOTE_1PCT: Case = Case::new("remote_1pct", "1 % remote");

    pub(crate) const fn new(word: &'static str, title: &'static str) -> Case {
        Case { word, title, is_staged: false }
    }

    pub(crate) const fn staged(word: &'static str, title: &'static str) -> Case {
        Case { word, title, is_staged: true }
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word)
    }
}

/// How the caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WaitMode {
    /// A plain thread.
    Blocking,
    /// Tasks on a multi-threaded runtime.
    Async,
}

/// The memory that a holder has in use where nothing else is said: up to this a waiter is promised
/// the lock of a dead holder within a time.
pub(crate) const USUAL_RESIDENT_MIB: u32 = 64;

/// What is measured.
pub(crate) const TIERLOCK: &str = "tierlock";

/// What a row says about itself, besides its figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Label {
    #[serde(serialize_with = "word_of")]
    pub(crate) scope: Scope,
    pub(crate) case: Case,
    pub(crate) subject: &'static str,
    /// What else than usual the subject does, in a second row of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<&'static str>,
    pub(crate) mode: WaitMode,
    /// Callers in all.
    pub(crate) clients: u32,
    /// Processes they are spread over.
    pub(crate) processes: u32,
    /// Threads that they run on in each process.
    pub(crate) threads: u32,
    /// The memory that a killed holder has in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resident_mib: Option<u32>,
    /// What a reader must know to compare it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<&'static str>,
}

fn word_of<S: Serializer>(scope: &Scope, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(scope.as_str())
}

impl Label {
    /// One caller of tierlock on one plain thread; `Label { …, ..Label::new(…) }` for the rest.
    pub(crate) const fn new(scope: Scope, case: Case) -> Label {
        Label {
            scope,
            case,
            subject: TIERLOCK,
            variant: None,
            mode: WaitMode::Blocking,
            clients: 1,
            processes: 1,
            threads: 1,
            resident_mib: None,
            note: None,
        }
    }

    /// The case for people.
    pub(crate) fn title(&self) -> String {
        match self.resident_mib {
            None | Some(USUAL_RESIDENT_MIB) => {}
            Some(mib) if mib > 0 && mib.is_multiple_of(1_024) => {
                return format!("killed, {} GiB", mib / 1_024);
            }
            Some(mib) => return format!("killed, {mib} MiB"),
        }
        let title = self.case.title.replace("{}", &self.clients.to_string());
        if (self.case, self.mode) == (Case::QUIET, WaitMode::Async) {
            title + ", async"
        } else {
            title
        }
    }

    /// The subject for people.
    pub(crate) fn subject(&self) -> String {
        match self.variant {
            Some(variant) => format!("{} {variant}", self.subject),
            None => self.subject.into(),
        }
    }
}

#[cfg(test)]
mod tests;

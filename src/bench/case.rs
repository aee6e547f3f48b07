//! The words of the bench: cases, subjects, and the label of a row.

use std::fmt;

use crate::Scope;

/// A situation that locks are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Case {
    /// Lock and unlock; nobody else wants it.
    Quiet,
    /// Threads of one process, empty sections, no pause between.
    Threads,
    /// Two processes, empty sections, no pause between.
    ProcessesEmpty,
    /// Two processes, sections of 200 µs, no pause between.
    Processes200us,
    /// From one process's unlock to the waiting other's lock.
    Handover,
    /// From a holder's SIGKILL to the waiting other's lock.
    HolderKilled,
    /// Names made at run time, out of very many.
    Names,
    /// One connection each, one name each.
    Connections32,
    /// One connection for all, one name each.
    Tasks256,
    /// One connection each, one name for all.
    OneName8,
}

impl Case {
    /// The word of the JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Case::Quiet => "quiet",
            Case::Threads => "threads",
            Case::ProcessesEmpty => "processes_empty",
            Case::Processes200us => "processes_200us",
            Case::Handover => "handover",
            Case::HolderKilled => "holder_killed",
            Case::Names => "names",
            Case::Connections32 => "connections_32",
            Case::Tasks256 => "tasks_256",
            Case::OneName8 => "one_name_8",
        }
    }
}

/// How the caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A plain thread.
    Blocking,
    /// Tasks on a multi-threaded runtime.
    Async,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Blocking => "blocking",
            Mode::Async => "async",
        })
    }
}

/// What is measured.
pub(crate) const TIERLOCK: &str = "tierlock";

/// What a row says about itself, besides its figures.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) scope: Scope,
    pub(crate) case: Case,
    pub(crate) subject: &'static str,
    pub(crate) mode: Mode,
    /// Callers in all.
    pub(crate) clients: u32,
    /// Processes they are spread over.
    pub(crate) processes: u32,
    /// Threads that they run on in each process.
    pub(crate) threads: u32,
    /// What a reader must know to compare it.
    pub(crate) note: Option<&'static str>,
}

impl Label {
    /// One caller of tierlock on one plain thread; `Label { …, ..Label::new(…) }` for the rest.
    pub(crate) const fn new(scope: Scope, case: Case) -> Label {
        Label {
            scope,
            case,
            subject: TIERLOCK,
            mode: Mode::Blocking,
            clients: 1,
            processes: 1,
            threads: 1,
            note: None,
        }
    }

    /// The case for people.
    pub(crate) fn title(&self) -> String {
        match self.case {
            Case::Quiet => "quiet".into(),
            Case::Threads => format!("{} threads", self.threads),
            Case::ProcessesEmpty => format!("{} processes, empty", self.processes),
            Case::Processes200us => format!("{} processes, 200 µs", self.processes),
            Case::Handover => "hand-over".into(),
            Case::HolderKilled => "holder killed".into(),
            Case::Names => "many names".into(),
            Case::Connections32 => "32 connections".into(),
            Case::Tasks256 => "256 tasks".into(),
            Case::OneName8 => "8 on one name".into(),
        }
    }

    /// The subject for people.
    pub(crate) fn who(&self) -> String {
        match self.mode {
            Mode::Async if !self.subject.starts_with("redis") => format!("{} async", self.subject),
            _ => self.subject.into(),
        }
    }
}

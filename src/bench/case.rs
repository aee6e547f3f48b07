//! The words of the bench: cases, subjects, and the label of a row.

use crate::Scope;

/// A situation that locks are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Case {
    /// Lock and unlock; nobody else wants it.
    Quiet,
    /// Threads of one process, empty sections, no pause between.
    Threads,
    /// Two threads of one process, sections of 200 µs, no pause between.
    Threads200us,
    /// Processes that all want one lock, empty sections, no pause between.
    ProcessesEmpty,
    /// Processes that all want one lock, sections of 200 µs, no pause between.
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
    /// Sixty-four threads of one process, one name for all.
    OneName64,
    /// Lock and unlock with a lease that nobody else wants.
    Kept,
    /// Two connections, one name, and nobody ever locks twice in a row.
    Turns2,
    /// One connection each; one locking of a hundred is of another client's name.
    Remote1pct,
    /// From a leader's SIGKILL, restarted at once, to its first new grant; 100 sessions hold.
    LeaderKilled,
}

impl Case {
    /// The word of the JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Case::Quiet => "quiet",
            Case::Threads => "threads",
            Case::Threads200us => "threads_200us",
            Case::ProcessesEmpty => "processes_empty",
            Case::Processes200us => "processes_200us",
            Case::Handover => "handover",
            Case::HolderKilled => "holder_killed",
            Case::Names => "names",
            Case::Connections32 => "connections_32",
            Case::Tasks256 => "tasks_256",
            Case::OneName8 => "one_name_8",
            Case::OneName64 => "one_name_64",
            Case::Kept => "kept",
            Case::Turns2 => "turns_2",
            Case::Remote1pct => "remote_1pct",
            Case::LeaderKilled => "leader_killed",
        }
    }

    /// Whether it is staged, one event at a time, and so has no throughput and no shares.
    pub(crate) const fn is_staged(self) -> bool {
        matches!(self, Case::Handover | Case::HolderKilled | Case::LeaderKilled)
    }
}

/// How the caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A plain thread.
    Blocking,
    /// Tasks on a multi-threaded runtime.
    Async,
}

/// What a holder has in use, where nothing else is said: up to this a waiter is promised the lock
/// of a dead one within a time.
pub(crate) const USUAL_RESIDENT_MIB: u32 = 64;

/// What is measured.
pub(crate) const TIERLOCK: &str = "tierlock";

/// What a row says about itself, besides its figures.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) scope: Scope,
    pub(crate) case: Case,
    pub(crate) subject: &'static str,
    /// What else than usual the subject does, in a second row of it.
    pub(crate) variant: Option<&'static str>,
    pub(crate) mode: Mode,
    /// Callers in all.
    pub(crate) clients: u32,
    /// Processes they are spread over.
    pub(crate) processes: u32,
    /// Threads that they run on in each process.
    pub(crate) threads: u32,
    /// The memory that a holder has in use who is killed.
    pub(crate) resident_mib: Option<u32>,
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
            variant: None,
            mode: Mode::Blocking,
            clients: 1,
            processes: 1,
            threads: 1,
            resident_mib: None,
            note: None,
        }
    }

    /// The case for people.
    pub(crate) fn title(&self) -> String {
        match (self.case, self.mode) {
            (Case::Quiet, Mode::Blocking) => "quiet".into(),
            (Case::Quiet, Mode::Async) => "quiet, async".into(),
            (Case::Threads, _) => format!("{} threads, empty", self.threads),
            (Case::Threads200us, _) => format!("{} threads, 200 µs", self.threads),
            (Case::ProcessesEmpty, _) => format!("{} processes, empty", self.processes),
            (Case::Processes200us, _) => format!("{} processes, 200 µs", self.processes),
            (Case::Handover, _) => "hand-over".into(),
            (Case::HolderKilled, _) => match self.resident_mib {
                None | Some(USUAL_RESIDENT_MIB) => "holder killed".into(),
                Some(mib) if mib > 0 && mib.is_multiple_of(1_024) => {
                    format!("killed, {} GiB", mib / 1_024)
                }
                Some(mib) => format!("killed, {mib} MiB"),
            },
            (Case::Names, _) => "many names".into(),
            (Case::Connections32, _) => "32 connections".into(),
            (Case::Tasks256, _) => "256 tasks".into(),
            (Case::OneName8, _) => "8 on one name".into(),
            (Case::OneName64, _) => "64 on one name".into(),
            (Case::Kept, _) => "kept lease".into(),
            (Case::Turns2, _) => "2 in turns".into(),
            (Case::Remote1pct, _) => "1 % remote".into(),
            (Case::LeaderKilled, _) => "leader killed".into(),
        }
    }

    /// The subject for people.
    pub(crate) fn who(&self) -> String {
        match self.variant {
            Some(variant) => format!("{} {variant}", self.subject),
            None => self.subject.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_holders_memory_is_said_where_it_is_not_the_usual_one() {
        let title = |resident_mib| {
            let label = Label::new(Scope::Process, Case::HolderKilled);
            Label { resident_mib, ..label }.title()
        };
        assert_eq!(title(Some(USUAL_RESIDENT_MIB)), "holder killed");
        assert_eq!(title(Some(0)), "killed, 0 MiB");
        assert_eq!(title(Some(256)), "killed, 256 MiB");
        assert_eq!(title(Some(1_024)), "killed, 1 GiB");
    }
}

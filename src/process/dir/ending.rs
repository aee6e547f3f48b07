//! Ending the process that holds a lock, for an operator (`tierlock break`).
//!
//! Nothing is taken from a living process: what a lock protects is written by its holder until that
//! holder is dead. So the holder's process is ended, and the kernel releases the lock.
//!
//! 1. The engine says which process holds the name under exactly the token that was given, and by
//!    which file it proves that it is alive.
//! 2. That process is opened as a pidfd, and its pid namespace and start time are compared: a pid
//!    that was used again is another process.
//! 3. **Then** token and proof are compared again: what was opened is the holder of this token.
//! 4. It gets SIGTERM, and SIGKILL if it holds the lock still when the grace is over.
//!
//! A holder may have died and left its proof of life to others, as the command of `tierlock run`
//! does with a daemon. These are found by what the kernel says of their descriptors, and ended too.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind},
    name::Name,
    printable::few,
    scope::Scope,
    time::Time,
    token::Token,
};

use super::{
    births::{self, Birth},
    files::FileIdentity,
};
use crate::process::Order;

/// How often it is looked whether the lock is still held.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// So long may the kernel take to end a process that was killed: its memory goes first, and a core
/// dump takes seconds.
const LONGEST_END: Duration = Duration::from_secs(30);

/// A hold, as an engine knows it.
pub(in crate::process) struct HolderProcess {
    /// With its token.
    pub(in crate::process) holder: Holder,
    /// The process that took the lock; `None` if it did not say which.
    pub(in crate::process) birth: Option<Birth>,
    /// The file that is locked for as long as the holder, or a process that it left that to, lives.
    pub(in crate::process) proof: FileIdentity,
}

/// What an engine knows of a name.
#[derive(Default)]
pub(in crate::process) struct HolderState {
    /// `None`: no living process has it in this directory.
    pub(in crate::process) hold: Option<HolderProcess>,
    /// The process that locked it at host scope, in words. The hold is then one of a process on its
    /// way to the leader.
    pub(in crate::process) widened_by: Option<String>,
    /// The token of the hold that keeps it taken by its `at_least`, though no process has it.
    pub(in crate::process) stays: Option<Token>,
}

/// Ends the process that holds `name` under exactly this token, and those that it left its proof of
/// life to. `look` says which process holds it now. Where `at_least` keeps it taken after that hold,
/// `end_stay` ends that, if it is still so.
pub(in crate::process) fn end_holder(
    name: &Name,
    Order { token, grace, asked_leader }: Order,
    look: impl Fn() -> Result<HolderState, LockError>,
    end_stay: impl FnOnce() -> Result<bool, LockError>,
) -> Result<(), LockError> {
    let ending = Ending { token, asked_leader, look };
    let ended = ending.stays().and_then(|stays| match stays && end_stay()? {
        true => Ok(()),
        false => ending.run(clock::now() + grace),
    });
    ended.map_err(|error| error.with_name(name).with_scope(Scope::Process))
}

struct Ending<Look> {
    token: Token,
    /// See [`Order`].
    asked_leader: bool,
    look: Look,
}

/// A process that is to end.
struct Target {
    pid: u32,
    handle: OwnedFd,
    told: Option<Signal>,
}

impl<Look: Fn() -> Result<HolderState, LockError>> Ending<Look> {
    /// Whether `at_least` keeps it taken after the hold with this token.
    fn stays(&self) -> Result<bool, LockError> {
        let found = (self.look)()?;
        self.check_scope(&found)?;
        Ok(found.stays == Some(self.token))
    }

    fn run(&self, kill_at: Time) -> Result<(), LockError> {
        let found = (self.look)()?;
        self.check_scope(&found)?;
        let Some(first) = found.hold else { return Err(self.refused(None)) };
        if first.holder.token != Some(self.token) {
            return Err(self.refused(Some(first.holder)));
        }
        check_is_not_ours(&first)?;
        let (proof, mut now) = (first.proof, first);
        let (mut targets, mut any_told): (Vec<Target>, bool) = (Vec::new(), false);
        loop {
            targets.retain(|target| !target.has_ended());
            if targets.is_empty() {
                targets = find(&now)?;
            }
            // They are open by now: what holds the lock is one of them, or has released it.
            now = match self.same(proof)? {
                Some(now) => now,
                None if any_told => return Ok(()),
                None => return Err(self.refused(None)),
            };
            let (signal, until) = match clock::now() < kill_at {
                true => (Signal::TERM, kill_at),
                false => (Signal::KILL, kill_at + LONGEST_END),
            };
            for target in targets.iter_mut().filter(|target| target.is_to_hear(signal)) {
                target.send(signal, &now.holder)?;
                any_told = true;
            }
            wait_for_an_end(&targets, until.min(clock::now() + LOOK_EVERY));
            if targets.is_empty() && clock::now() >= kill_at {
                return Err(not_to_be_seen(now.holder));
            }
            if clock::now() >= kill_at + LONGEST_END {
                return Err(does_not_end(&targets));
            }
        }
    }

    /// The hold, if it still is the one that is to end.
    fn same(&self, proof: FileIdentity) -> Result<Option<HolderProcess>, LockError> {
        let is_same =
            |now: &HolderProcess| now.holder.token == Some(self.token) && now.proof == proof;
        Ok((self.look)()?.hold.filter(is_same))
    }

    /// A name of host scope is its leader's to take away. The directory does not even know whether
    /// it is held.
    fn check_scope(&self, found: &HolderState) -> Result<(), LockError> {
        let Some(by) = found.widened_by.as_ref().filter(|_| !self.asked_leader) else {
            return Ok(());
        };
        Err(LockError::config(format!(
            "it is locked at host scope by {by}: it is held at the leader or not, and only the \
             leader can take it away; give the same leaders with --leader"
        )))
    }

    fn refused(&self, holder: Option<Holder>) -> LockError {
        let token = self.token;
        let text = match holder.as_ref().and_then(|holder| holder.token) {
            Some(held) => {
                format!("token {token} is not its holder's, which is {held}; nothing was broken")
            }
            None => format!("it is not held, with token {token} or any other"),
        };
        LockError::new(LockErrorKind::Refused, text).with_holder(holder)
    }
}

/// Which processes are to end, so that the hold does: the one that took the lock, or, if that is
/// gone, those that have its proof of life.
fn find(holding: &HolderProcess) -> Result<Vec<Target>, LockError> {
    if let Some(birth) = holding.birth {
        check_is_visible(birth, &holding.holder)?;
        if let Some(target) = Target::born(birth)? {
            return Ok(vec![target]);
        }
    }
    let (keepers, hidden) = holding.proof.keepers();
    let targets = keepers.into_iter().filter_map(|pid| Target::with_proof(pid, holding.proof));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    if !targets.is_empty() || hidden == 0 {
        // None: the last of them has just gone, or the next look finds it.
        return Ok(targets);
    }
    let holder = &holding.holder;
    Err(LockError::new(
        LockErrorKind::Refused,
        format!(
            "the process that took it ({holder}) is gone, and what it left the lock to is not among \
             the processes that this user may look into; {hidden} others are hidden: break it as \
             root"
        ),
    ))
}

impl Target {
    /// The very process that was born so; `None` if it has ended.
    fn born(birth: Birth) -> Result<Option<Target>, LockError> {
        let Some(target) = Target::open(birth.pid)? else { return Ok(None) };
        // The process that is open does not change: if the start is its own, it is that one, and if
        // its pid is another's by now, it has ended.
        let same = births::started(birth.pid) == Some(birth.started);
        Ok(Some(target).filter(|target| same && !target.has_ended()))
    }

    /// The process of this pid, if it has the proof of life; `None` if not.
    fn with_proof(pid: u32, proof: FileIdentity) -> Option<Result<Target, LockError>> {
        let target = match Target::open(pid) {
            Ok(opened) => opened?,
            Err(error) => return Some(Err(error)),
        };
        let has_it = proof.is_kept_by(pid).unwrap_or(false) && !target.has_ended();
        has_it.then_some(Ok(target))
    }

    fn open(pid: u32) -> Result<Option<Target>, LockError> {
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(Target { pid, handle, told: None })),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(LockError::new(
                LockErrorKind::Refused,
                format!(
                    "this system gives no handle of process {pid}, so that another one could be \
                     ended in its place ({error}); look whether it is the holder, and end it: kill \
                     {pid}"
                ),
            )),
        }
    }

    fn is_to_hear(&self, signal: Signal) -> bool {
        self.told != Some(signal)
    }

    fn send(&mut self, signal: Signal, holder: &Holder) -> Result<(), LockError> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(Errno::SRCH) => {
                self.told = Some(signal);
                Ok(())
            }
            Err(Errno::PERM) => {
                let pid = self.pid;
                let error = LockError::new(
                    LockErrorKind::Refused,
                    format!(
                        "process {pid}, which holds it, is another user's; break it as that user, or \
                         as root"
                    ),
                );
                Err(error.with_holder(Some(holder.clone())))
            }
            Err(error) => {
                let text = format!("cannot end process {}: {error}", self.pid);
                Err(LockError::new(LockErrorKind::Io, text))
            }
        }
    }

    fn has_ended(&self) -> bool {
        wait_for_an_end(std::slice::from_ref(self), Time::ZERO)
    }
}

/// Whether one of them has ended, by this time.
fn wait_for_an_end(targets: &[Target], until: Time) -> bool {
    let mut all: Vec<_> =
        targets.iter().map(|target| PollFd::new(&target.handle, PollFlags::IN)).collect();
    // One that is too long for the system is none.
    let rest = Timespec::try_from(until.since(clock::now())).ok();
    // Interrupted: the caller looks again.
    rustix::event::poll(&mut all, rest.as_ref()).unwrap_or_default();
    all.iter().any(|target| !target.revents().is_empty())
}

/// A process of another pid namespace has a number here that is another's, or none.
fn check_is_visible(birth: Birth, holder: &Holder) -> Result<(), LockError> {
    let own = Birth::of_this_process().map(|own| own.namespace);
    if own == Some(birth.namespace) {
        return Ok(());
    }
    let error = LockError::new(
        LockErrorKind::Refused,
        "its holder lives in another pid namespace (a container), where its pid means another \
         process than here; run `tierlock break` inside that container, or end the container",
    );
    Err(error.with_holder(Some(holder.clone())))
}

fn check_is_not_ours(holding: &HolderProcess) -> Result<(), LockError> {
    let own = std::process::id();
    let is_holder = holding.birth.is_some_and(|birth| Birth::of_this_process() == Some(birth));
    if !is_holder && !holding.proof.is_kept_by(own).unwrap_or(false) {
        return Ok(());
    }
    let error = LockError::new(
        LockErrorKind::Refused,
        format!(
            "this process ({own}) runs under that lock itself, which stays taken until it ends; run \
             `tierlock break` outside of what `tierlock run` started"
        ),
    );
    Err(error.with_holder(Some(holding.holder.clone())))
}

fn not_to_be_seen(holder: Holder) -> LockError {
    let error = LockError::new(
        LockErrorKind::Refused,
        "its holder is gone, and no process that can be seen from here has its proof of life; look \
         in the containers that use the directory too, and end what the holder left running",
    );
    error.with_holder(Some(holder))
}

fn does_not_end(targets: &[Target]) -> LockError {
    LockError::new(
        LockErrorKind::TimedOut,
        format!(
            "process {} was killed and has not ended in {LONGEST_END:?}: it waits in the kernel \
             (state D: a disk, a network file system), and the lock is free once it has ended",
            few(targets.iter().map(|target| target.pid), ", ")
        ),
    )
}

#[cfg(test)]
mod tests;

//! Looking after a running command: signals pass through, its terminal follows it, and it does
//! not outlive its lock.

use std::{cell::Cell, time::Duration};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, kill_current_process_group, kill_process_group,
        test_kill_process_group, waitid,
    },
};
use signal_hook::consts::signal::{SIGCHLD, SIGCONT};

use super::{
    args::OnLost,
    events::{CliEvent, Events},
    failure::say,
    guardian::Guardian,
    take::Guard,
    terminal::Terminal,
};
use crate::{clock, error::LostReason, scope::Scope, time::Time};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandEnd {
    /// With this exit status.
    Status(u8),
    /// By this signal.
    Signal(u8),
}

/// How a supervision ended.
pub(super) struct CommandOutcome {
    pub(super) ended: CommandEnd,
    /// The lock was lost, or about to be, while the command ran; it was said.
    pub(super) lost: bool,
    /// Processes that the command started still run in its group.
    pub(super) leftovers: bool,
}

/// A running command and what is held for it.
pub(super) struct Supervision<'a> {
    /// As it is called in messages.
    pub(super) name: String,
    pub(super) lock: &'a Guard,
    pub(super) events: &'a Events,
    /// The command's process; its process group has the same number.
    pub(super) command: Pid,
    pub(super) guardian: Option<Guardian>,
    pub(super) terminal: Option<Terminal>,
    /// The time between SIGTERM and SIGKILL.
    pub(super) grace: Duration,
    pub(super) on_lost: OnLost,
    /// When the command's time is up, if it was given one.
    pub(super) at_most_ends: Option<Time>,
    pub(super) told_to_run_on: Cell<bool>,
    pub(super) stage: StopStage,
    pub(super) deadline: KnownDeadline,
}

/// How far the lock's end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StopStage {
    #[default]
    Held,
    /// It is lost, and the command runs on as was asked for.
    LostAndWarned,
    /// The command was told to stop, and is killed at this time. A renewal that comes through
    /// after all changes neither: a command that was told to stop is stopping.
    Stopping { kill_at: Time },
    /// The command was killed.
    Killed,
}

/// What is known of the lock's deadline.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KnownDeadline {
    /// The newest one that was seen while the lock was held.
    newest: Option<Time>,
    /// The longest time to it that was seen.
    longest: Duration,
}

/// As the command line calls it.
const HELD_TOO_LONG: &str = "it was held for as long as --at-most allows";

/// How often the lock's deadline is looked at, which renewals move; also the longest sleep while
/// there is one, since the clock of sleeps stands still while the machine is suspended.
const TICK: Duration = Duration::from_millis(100);

/// How often the terminal is looked at while the command does not have it.
const TERMINAL_TICK: Duration = Duration::from_millis(250);

/// How often a process group is looked at that is about to be empty.
const SHORT_TICK: Duration = Duration::from_millis(5);

/// How often all processes are looked through for those of a group.
const REST_TICK: Duration = Duration::from_millis(20);

/// How long what the command started may take to end after it, before it counts as left running.
const AFTERMATH: Duration = Duration::from_millis(50);

/// Has `events` tell when the lock is lost.
pub(super) fn tell_of_loss(lock: &Guard, events: &Events) {
    let events = events.sender();
    lock.on_lost(move |reason| {
        let _ = events.send(CliEvent::Lost(reason));
    });
}

impl Supervision<'_> {
    /// Waits until the command has ended, and sees to it that it ends in time.
    pub(super) fn run(mut self) -> CommandOutcome {
        loop {
            if let Some(ended) = self.ended() {
                return self.finish(ended);
            }
            if self.was_stopped() {
                self.follow_a_stop();
            }
            self.look_after_the_guardian();
            let until_lock = self.look_at_the_lock();
            let until_terminal = self.look_at_the_terminal();
            let wait = until_lock.into_iter().chain(until_terminal).min();
            match self.events.next(wait) {
                Some(CliEvent::Signal(SIGCHLD)) => self.reap_orphans(),
                Some(CliEvent::Signal(SIGCONT)) => self.resume(),
                Some(CliEvent::Signal(signal)) => self.pass_on(signal),
                // Else it is an earlier lock's.
                Some(CliEvent::Lost(reason)) if self.lock.why_lost().is_some() => {
                    self.lost(&self.lost_because(reason));
                }
                Some(CliEvent::Lost(_) | CliEvent::Woken | CliEvent::InputEnded) | None => {}
            }
        }
    }

    /// The command has ended: ends what it left, if the lock is gone, and tidies up.
    fn finish(mut self, ended: CommandEnd) -> CommandOutcome {
        if self.stage == StopStage::Held
            && let Some(why) = self.ended_too_late(ended)
        {
            say(why);
            self.stage = match self.on_lost {
                OnLost::Warn => StopStage::LostAndWarned,
                OnLost::Kill => StopStage::Stopping { kill_at: Time::ZERO },
            };
        }
        if let StopStage::Stopping { kill_at } = self.stage {
            // What the command started has the same grace as the command itself.
            self.wait_for_the_rest(kill_at);
            self.signal_the_group(Signal::KILL);
        }
        // In this order: until it is reaped, the command's number is no other process's, and the
        // guardian, should we be killed, ends no group but this one.
        self.guardian = None;
        self.reap();
        let leftovers = self.leftovers_after(AFTERMATH);
        if let Some(terminal) = &self.terminal {
            terminal.take_back_from(self.command);
            if matches!(self.stage, StopStage::Stopping { .. } | StopStage::Killed) {
                terminal.restore_modes();
            }
        }
        CommandOutcome { ended, lost: self.stage != StopStage::Held, leftovers }
    }
}

/// The lock.
impl Supervision<'_> {
    /// Acts on the lock's deadline, and says when to look again at the latest.
    fn look_at_the_lock(&mut self) -> Option<Duration> {
        if self.stage == StopStage::Held {
            self.look_at_the_deadline();
        }
        let now = clock::now();
        match self.stage {
            StopStage::Held => {
                let stop_at = self.deadline.newest? - self.grace();
                Some(stop_at.since(now).min(TICK))
            }
            StopStage::LostAndWarned => None,
            StopStage::Stopping { kill_at } if now >= kill_at => {
                self.signal_the_group(Signal::KILL);
                self.stage = StopStage::Killed;
                Some(TICK)
            }
            StopStage::Stopping { kill_at } => Some(kill_at.since(now).min(TICK)),
            StopStage::Killed => Some(TICK),
        }
    }

    fn look_at_the_deadline(&mut self) {
        if let Some(reason) = self.lock.why_lost() {
            return self.lost(&self.lost_because(reason));
        }
        let Some(remaining) = self.lock.remaining() else { return };
        let deadline = clock::now() + remaining;
        self.deadline.newest = Some(deadline);
        self.deadline.longest = self.deadline.longest.max(remaining);
        if self.on_lost == OnLost::Warn {
            return;
        }
        if let Some(guardian) = &mut self.guardian {
            guardian.must_end_by(deadline);
        }
        if remaining <= self.grace() {
            let (lock, left) = (self.lock_in_words(), remaining.as_millis());
            let why = match self.at_most_ends.is_some_and(|end| end <= deadline + TICK) {
                true => HELD_TOO_LONG.to_owned(),
                false => {
                    format!("no leader confirmed a renewal, and its deadline is {left} ms off")
                }
            };
            self.stop(deadline, &format!("{lock}: {why}"));
        }
    }

    /// Never so long that a lock in good health falls into it between two renewals.
    fn grace(&self) -> Duration {
        self.grace.min(self.deadline.longest / 2)
    }

    /// The lock is lost, earlier than its deadline perhaps: told by the leader, or by `at_most`.
    fn lost(&mut self, why: &str) {
        if self.stage != StopStage::Held {
            return;
        }
        match self.on_lost {
            OnLost::Warn => {
                say(format_args!("{why}; the command runs on without it"));
                self.stage = StopStage::LostAndWarned;
            }
            OnLost::Kill => {
                let last_moment = self.deadline.newest.unwrap_or(Time::NEVER);
                self.stop(last_moment.min(clock::now() + self.grace), why);
            }
        }
    }

    fn stop(&mut self, kill_at: Time, why: &str) {
        self.stage = StopStage::Stopping { kill_at };
        if let Some(guardian) = &mut self.guardian {
            guardian.must_end_by(kill_at);
        }
        self.signal_the_group(Signal::TERM);
        // A command that is stopped acts on no signal but this one.
        self.signal_the_group(Signal::CONT);
        say(format_args!("{why}; the command is ended"));
    }

    /// The command ended under a lock that was lost by then, or was ended by the guardian.
    fn ended_too_late(&self, ended: CommandEnd) -> Option<String> {
        if let Some(reason) = self.lock.why_lost() {
            let why = self.lost_because(reason);
            return Some(format!("{why}; the command had not ended by then"));
        }
        let by_guardian = ended == CommandEnd::Signal(Signal::KILL.as_raw() as u8)
            && self.guardian.is_some()
            && self.deadline.newest.is_some_and(|deadline| deadline <= clock::now());
        let lock = self.lock_in_words();
        by_guardian.then(|| {
            format!("{lock}: this process was held up until its deadline; the command was ended")
        })
    }

    fn lock_in_words(&self) -> String {
        format!("{} {}", self.lock.scope(), self.name)
    }

    fn lost_because(&self, reason: LostReason) -> String {
        let lock = self.lock_in_words();
        match reason {
            LostReason::HeldTooLong => format!("{lock}: lost: {HELD_TOO_LONG}"),
            _ => format!("{lock}: {reason}"),
        }
    }

    fn look_after_the_guardian(&mut self) {
        if let Some(guardian) = &mut self.guardian
            && let Err(error) = guardian.look_after()
        {
            say(format_args!(
                "the process that guards the command's process group has ended: {error}"
            ));
            self.guardian = None;
        }
    }
}

/// The command's processes.
impl Supervision<'_> {
    /// How the command ended, if it has. It stays a zombie until it is reaped, so that its
    /// number, which is its group's, stays its own.
    fn ended(&self) -> Option<CommandEnd> {
        let status = self.look(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => CommandEnd::Status(code as u8),
            (None, signal) => CommandEnd::Signal(signal.unwrap_or_default() as u8),
        })
    }

    /// Whether the command was stopped since it was last asked.
    fn was_stopped(&self) -> bool {
        self.look(WaitIdOptions::STOPPED).is_some()
    }

    fn look(&self, what: WaitIdOptions) -> Option<rustix::process::WaitIdStatus> {
        loop {
            match waitid(WaitId::Pid(self.command), what | WaitIdOptions::NOHANG) {
                Err(Errno::INTR) => {}
                looked => return looked.ok().flatten(),
            }
        }
    }

    fn reap(&self) {
        while matches!(waitid(WaitId::Pid(self.command), WaitIdOptions::EXITED), Err(Errno::INTR)) {
        }
    }

    /// Waits until no process of the group lives, at most until then. The command itself has ended and
    /// is not reaped.
    fn wait_for_the_rest(&self, until: Time) {
        loop {
            self.reap_orphans();
            let left = until.since(clock::now());
            if left.is_zero() || !self.others_live() {
                return;
            }
            match self.events.next(Some(left.min(REST_TICK))) {
                Some(CliEvent::Signal(signal)) if signal != SIGCHLD => self.pass_on(signal),
                _ => {}
            }
        }
    }

    /// Whether the group has processes that live. A signal to it does not tell, since the command
    /// that is not reaped yet counts as one. Where the system does not tell either, it has.
    fn others_live(&self) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc/") else { return true };
        let group = self.command.to_string();
        processes.flatten().any(|process| {
            let is_one = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
            let stat = is_one.then(|| std::fs::read_to_string(process.path().join("stat")).ok());
            // PID (NAME) STATE PARENT GROUP …
            let stat = stat.flatten().unwrap_or_default();
            let Some((_, stat)) = stat.rsplit_once(") ") else { return false };
            let mut fields = stat.split(' ');
            let state = fields.next();
            !matches!(state, Some("Z" | "X")) && fields.nth(1) == Some(&group)
        })
    }

    /// Whether the group still has processes after at most that long. As long as it has, its
    /// number cannot become another group's.
    fn leftovers_after(&self, at_most: Duration) -> bool {
        let until = clock::now() + at_most;
        loop {
            self.reap_orphans();
            if test_kill_process_group(self.command) == Err(Errno::SRCH) {
                return false;
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return true;
            }
            match self.events.next(Some(left.min(SHORT_TICK))) {
                Some(CliEvent::Signal(signal)) if signal != SIGCHLD => self.pass_on(signal),
                _ => {}
            }
        }
    }

    /// The first process of a container inherits all orphans, and must reap them.
    fn reap_orphans(&self) {
        if std::process::id() != 1 {
            return;
        }
        let guardian = self.guardian.as_ref().map(Guardian::process);
        let children = std::fs::read_to_string("/proc/self/task/1/children").unwrap_or_default();
        let children =
            children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        for orphan in children.filter(|&pid| pid != self.command && Some(pid) != guardian) {
            let _ = waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }

    fn signal_the_group(&self, signal: Signal) {
        // It fails when no process is left, and when all run as another user (sudo).
        let _ = kill_process_group(self.command, signal);
    }

    fn pass_on(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.signal_the_group(signal);
        }
    }
}

/// The terminal.
impl Supervision<'_> {
    /// We were continued, or brought to the foreground: so is the command.
    fn resume(&self) {
        if let Some(terminal) = &self.terminal {
            // It was continued when it got the terminal. What has stopped it since then (Ctrl-Z, typed before
            // this signal was looked at) is a stop of its own, and would be undone. The look leaves it to be
            // followed.
            let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
            if terminal.is_of(self.command) && self.look(stopped).is_some() {
                return;
            }
            if terminal.is_ours() {
                terminal.lend_to(self.command);
            }
        }
        self.signal_the_group(Signal::CONT);
    }

    /// A shell that brings a running job to the foreground sends no signal.
    fn look_at_the_terminal(&self) -> Option<Duration> {
        let terminal = self.terminal.as_ref()?;
        if terminal.is_ours() {
            self.resume();
        }
        (!terminal.is_of(self.command)).then_some(TERMINAL_TICK)
    }

    /// The command was stopped. If it had the terminal (Ctrl-Z), we stop too, so that the shell sees
    /// a stopped job and continues both of us. Stopped in the background, it waits for the
    /// foreground, and we for it: stopping there would race with a shell that is just bringing us
    /// back.
    fn follow_a_stop(&self) {
        let Some(terminal) = &self.terminal else { return };
        if matches!(self.stage, StopStage::Stopping { .. } | StopStage::Killed) {
            return self.signal_the_group(Signal::CONT);
        }
        if !terminal.is_of(self.command) {
            return;
        }
        if self.lock.scope() >= Scope::Host {
            // The lease must be renewed.
            if !self.told_to_run_on.replace(true) {
                let lock = self.lock_in_words();
                say(format_args!("the command is not stopped: it would lose its {lock}"));
            }
            return self.signal_the_group(Signal::CONT);
        }
        terminal.take_back_from(self.command);
        // Stops us right here, and all in a pipeline with us, until the shell continues
        // us. In a group that no shell would continue the kernel ignores it, and so do we.
        let _ = kill_current_process_group(Signal::TSTP);
    }
}

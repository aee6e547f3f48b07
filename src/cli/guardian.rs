//! A second, tiny process that ends the command's process group when tierlock cannot.
//!
//! A lease runs out when its holder is gone, so at host scope the command must not outlive
//! `tierlock run`. The kernel kills the command itself when we die (its parent-death signal), but
//! not what the command started. The guardian does: it reads a pipe of ours, and when that ends,
//! because we were killed, it kills the whole group. It is also told the deadline of the lock, and
//! kills the group when that passes without a newer one: so a `tierlock run` that is stopped or
//! stuck loses its command no later than its lock.
//!
//! It is this same program, executed anew: it shares no memory, no descriptor and no process
//! group with us, and it is found under another name than ours (a `pkill tierlock` leaves it to
//! its work). If it dies, we start another one; if both are killed at once, only the
//! parent-death signal remains.

use std::{
    ffi::OsString,
    io::{self, PipeWriter, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process_group},
};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::{clock, time::Time};

/// What the guardian is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardianMessage {
    /// The process group to end when we are gone.
    Group(Pid),
    /// When to end it in any case; [`Time::NEVER`] takes that back. Readable there because both
    /// processes read the one boot clock of the machine.
    Deadline(Time),
}

const MESSAGE_BYTES: usize = 9;

impl GuardianMessage {
    pub(super) fn encode(self) -> [u8; MESSAGE_BYTES] {
        let (kind, number) = match self {
            GuardianMessage::Group(pid) => (b'g', pid.as_raw_nonzero().get() as u64),
            GuardianMessage::Deadline(at) => (b'd', at.as_nanos()),
        };
        let mut bytes = [kind; MESSAGE_BYTES];
        bytes[1..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; MESSAGE_BYTES]) -> Option<GuardianMessage> {
        let [kind, number @ ..] = bytes;
        let number = u64::from_le_bytes(number);
        match kind {
            b'g' => Pid::from_raw(i32::try_from(number).ok()?).map(GuardianMessage::Group),
            b'd' => Some(GuardianMessage::Deadline(Time::from_nanos(number))),
            _ => None,
        }
    }
}

/// The guardian, as `tierlock run` has it. Dropping it ends it without touching the group.
pub(super) struct Guardian {
    process: Child,
    pipe: PipeWriter,
    group: Option<Pid>,
    deadline: Time,
    restarts_left: u8,
}

/// How often a guardian that was killed is replaced: more kills than this are meant.
const RESTARTS: u8 = 3;

impl Guardian {
    pub(super) fn start() -> io::Result<Guardian> {
        let (process, pipe) = spawn(&[])?;
        Ok(Guardian { process, pipe, group: None, deadline: Time::NEVER, restarts_left: RESTARTS })
    }

    /// Where a command's process announces its group before it becomes the command, so that no
    /// moment is unguarded.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.pipe.as_fd().try_clone_to_owned()
    }

    /// Remembers the group that was announced, to tell a successor.
    pub(super) fn of(mut self, group: Pid) -> Guardian {
        self.group = Some(group);
        self
    }

    pub(super) fn process(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// The group must end at `deadline`.
    pub(super) fn must_end_by(&mut self, deadline: Time) {
        if self.deadline != deadline {
            self.deadline = deadline;
            self.tell(GuardianMessage::Deadline(deadline));
        }
    }

    /// Replaces the guardian if it has died. Called from the main thread only, since a child's
    /// parent-death signal is bound to the thread that made it.
    pub(super) fn look_after(&mut self) -> io::Result<()> {
        if !matches!(self.process.try_wait(), Ok(Some(_))) || self.restarts_left == 0 {
            return Ok(());
        }
        self.replace()
    }

    /// Has another guardian take over from one that is dead, or that nothing can be told.
    pub(super) fn replace(&mut self) -> io::Result<()> {
        let Some(restarts_left) = self.restarts_left.checked_sub(1) else {
            return Err(io::Error::other("it was killed as often as it was started"));
        };
        self.restarts_left = restarts_left;
        self.end();
        let deadline = GuardianMessage::Deadline(self.deadline);
        let group = self.group.map(GuardianMessage::Group);
        (self.process, self.pipe) = match group {
            Some(group) => spawn(&[deadline, group])?,
            None => spawn(&[deadline])?,
        };
        Ok(())
    }

    /// Never blocks. A broken pipe means that the guardian is dead, which `look_after` sees to. A
    /// full one means that it has been stopped for long: it must not run again, since what it
    /// would find in the pipe are old deadlines without this newer one, and it would end a command
    /// in good health. So it is made a dead one.
    fn tell(&mut self, message: GuardianMessage) {
        let told = self.pipe.write(&message.encode());
        if told.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let _ = self.process.kill();
        }
    }

    /// Once this returns, the guardian sends no more signals.
    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.end();
    }
}

const ARGUMENT: &str = "__guard";

/// Starts a guardian that finds `orders` in its pipe: it never lives without knowing them.
fn spawn(orders: &[GuardianMessage]) -> io::Result<(Child, PipeWriter)> {
    let (reader, mut writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    for order in orders {
        writer.write_all(&order.encode())?;
    }
    let process = Command::new(this_program()?)
        .arg0("lock-guard")
        .arg(ARGUMENT)
        .stdin(reader)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok((process, writer))
}

/// This program's file, also when it was replaced by a newer one since.
fn this_program() -> io::Result<PathBuf> {
    let myself = Path::new("/proc/self/exe");
    if myself.exists() { Ok(myself.to_owned()) } else { std::env::current_exe() }
}

/// Whether this process was started to be a guardian.
pub(super) fn is_asked_for(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, only] if only == ARGUMENT)
}

/// The guardian's whole life.
pub(super) fn main() -> ExitCode {
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        // It ends with its tierlock, not with a signal that was meant for that one.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    guard(&rustix::stdio::stdin());
    ExitCode::SUCCESS
}

fn guard(pipe: &impl AsFd) {
    let mut orders = GuardianOrders { group: None, deadline: Time::NEVER };
    loop {
        let wait = match orders.deadline {
            Time::NEVER => None,
            deadline => Some(deadline.since(clock::now()).min(LONGEST_SLEEP)),
        };
        // Everything that was said is heard before the deadline is judged: a guardian that was
        // stopped for a while must not act on an old one.
        let mut ready = wait_for(pipe, wait);
        while ready {
            if !orders.read(pipe) {
                return orders.end_the_group();
            }
            ready = wait_for(pipe, Some(Duration::ZERO));
        }
        if clock::now() >= orders.deadline {
            orders.end_the_group();
            orders.deadline = Time::NEVER;
        }
    }
}

/// The clock that threads sleep on stands still while the machine is suspended; ours does not.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Whether there is something to read, or the pipe's end.
fn wait_for(pipe: &impl AsFd, at_most: Option<Duration>) -> bool {
    let mut pipe = [PollFd::new(pipe, PollFlags::IN)];
    let timeout = at_most.and_then(|wait| Timespec::try_from(wait).ok());
    // A failure (a signal, most likely) counts as nothing to read.
    poll(&mut pipe, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

struct GuardianOrders {
    group: Option<Pid>,
    deadline: Time,
}

impl GuardianOrders {
    /// Takes in what was said; false at the pipe's end. Messages are written in one piece each,
    /// so they are read whole.
    fn read(&mut self, pipe: &impl AsFd) -> bool {
        let mut bytes = [0; 64 * MESSAGE_BYTES];
        let length = match rustix::io::read(pipe, &mut bytes) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        let (messages, _) = bytes[..length].as_chunks();
        for message in messages {
            match GuardianMessage::decode(*message) {
                Some(GuardianMessage::Group(group)) => self.group = Some(group),
                Some(GuardianMessage::Deadline(at)) => self.deadline = at,
                None => {}
            }
        }
        true
    }

    fn end_the_group(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;

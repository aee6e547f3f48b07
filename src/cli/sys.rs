//! What a command is born with, between fork and exec: the program's island of `unsafe`.
//!
//! Everything called here between fork and exec is a plain system call on descriptors that were
//! opened before: no allocation, no lock.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::process::Pid;

/// What the command's process does before it becomes the command. The descriptors are copies of
/// its own; they are closed in tierlock when the `Command` is dropped, and in the command by exec.
pub(super) struct Birth {
    /// Our own process: the command ends when we do.
    pub(super) parent: Pid,
    /// The proof of life that the command inherits beyond exec.
    pub(super) proof: Option<OwnedFd>,
    /// Where to announce the process group, and how.
    pub(super) guardian: Option<OwnedFd>,
    /// The terminal that the command's group is to own.
    pub(super) terminal: Option<OwnedFd>,
}

/// Has `command` start in a process group of its own, ready for what `birth` says.
pub(super) fn prepare(command: &mut Command, birth: Birth) {
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe functions may be called, because other
    // threads' locks (the allocator's among them) may be held for ever there. `in_child` and all
    // it calls keep to system calls on descriptors that `birth` owns.
    unsafe { command.pre_exec(move || birth.in_child()) };
}

impl Birth {
    fn in_child(&self) -> io::Result<()> {
        self.die_with_the_parent()?;
        let me = rustix::process::getpid();
        if let Some(guardian) = &self.guardian {
            announce(me, guardian)?;
        }
        if let Some(proof) = &self.proof {
            rustix::io::fcntl_setfd(proof, rustix::io::FdFlags::empty())?;
        }
        if let Some(terminal) = &self.terminal {
            // If the terminal is gone by now, the command will find out for itself.
            let _ = set_foreground(terminal, me);
        }
        Ok(())
    }

    /// The kernel kills the command when the thread that made it (our main thread) ends. It may
    /// have ended before the kernel was asked; then our parent is another one already.
    fn die_with_the_parent(&self) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if rustix::process::getppid() != Some(self.parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    }
}

/// Tells the guardian which group to end. Whatever hinders that, the guardian is dead or as good as
/// dead, and the command must not start: see [`has_no_guardian`].
fn announce(group: Pid, guardian: &OwnedFd) -> io::Result<()> {
    let message = super::guardian::Message::Group(group).encode();
    // std has put SIGPIPE back to its default by now, which is to die of a pipe that nobody
    // reads; std would take that for a command that was started.
    let ignored = Ignored::sigpipe();
    let written = rustix::io::write(guardian, &message);
    drop(ignored);
    match written {
        Ok(length) if length == message.len() => Ok(()),
        _ => Err(NO_GUARDIAN.into()),
    }
}

/// No failing exec says this.
const NO_GUARDIAN: rustix::io::Errno = rustix::io::Errno::PIPE;

/// Whether a command was not started because its guardian could not be told of it.
pub(super) fn has_no_guardian(spawning: &io::Error) -> bool {
    spawning.raw_os_error() == Some(NO_GUARDIAN.raw_os_error())
}

/// What the process does on SIGPIPE, put back on drop. Only for a process of one thread.
struct Ignored(libc::sighandler_t);

impl Ignored {
    fn sigpipe() -> Ignored {
        // SAFETY: SIGPIPE is a signal's number, and no handler is installed; the call is
        // async-signal-safe.
        Ignored(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) })
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        // SAFETY: it is what `signal` said was there before; the call is async-signal-safe.
        unsafe { libc::signal(libc::SIGPIPE, self.0) };
    }
}

/// Makes `group` the terminal's foreground group, also from the background: a SIGTTOU that is
/// blocked is not sent, and the call succeeds.
pub(super) fn set_foreground(terminal: impl AsFd, group: Pid) -> io::Result<()> {
    let blocked = Blocked::sigttou();
    let result = rustix::termios::tcsetpgrp(terminal, group);
    drop(blocked);
    Ok(result?)
}

/// The thread's signal mask from before, put back on drop.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn sigttou() -> Blocked {
        // SAFETY: all zeroes is a valid value of the plain C type `sigset_t`.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut before = set;
        // SAFETY: it writes into the `sigset_t` that the pointer came from.
        unsafe { libc::sigemptyset(&mut set) };
        // SAFETY: `set` was emptied above, and SIGTTOU is a signal's number.
        unsafe { libc::sigaddset(&mut set, libc::SIGTTOU) };
        // SAFETY: both pointers come from `sigset_t`s of this frame; the call is
        // async-signal-safe.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) };
        Blocked(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the mask is the one that `pthread_sigmask` gave us; the old one is not asked
        // for, which a null pointer says.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// A shell that would die of SIGPIPE at once.
    fn command(guardian: impl Into<OwnedFd>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -PIPE $$"]);
        let parent = rustix::process::getpid();
        let guardian = Some(guardian.into());
        prepare(&mut command, Birth { parent, proof: None, guardian, terminal: None });
        command
    }

    #[test]
    fn without_a_guardian_there_is_no_command() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = command(writer).spawn().expect_err("nobody guards it");
        assert!(has_no_guardian(&error), "{error}");
    }

    #[test]
    fn a_full_pipe_is_no_guardian_either() {
        let (_reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while rustix::io::write(&writer, &[0]).is_ok() {}
        let error = command(writer).spawn().expect_err("nobody guards it");
        assert!(has_no_guardian(&error), "{error}");
    }

    #[test]
    fn a_guarded_command_is_announced_and_has_the_usual_sigpipe() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = command(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut told = Vec::new();
        io::Read::read_to_end(&mut reader, &mut told).unwrap();
        let group = super::super::guardian::Message::Group(Pid::from_child(&child));
        assert_eq!(told, group.encode());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGPIPE));
    }

    #[test]
    fn a_program_that_is_not_there_is_something_else() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("/nonexistent/program");
        let parent = rustix::process::getpid();
        let guardian = Some(writer.into());
        prepare(&mut command, Birth { parent, proof: None, guardian, terminal: None });
        assert!(!has_no_guardian(&command.spawn().unwrap_err()));
    }
}

//! What a command is born with, between fork and exec: the program's island of `unsafe`.
//!
//! Everything called here between fork and exec is a plain system call on descriptors and memory
//! that were there before: no allocation, no lock.

use std::{
    ffi::{CString, OsStr, OsString, c_char},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use rustix::process::Pid;

/// What the command's process does before it becomes the command. The descriptors are copies of
/// its own; they are closed in tierlock when the `Command` is dropped, and in the command by exec.
pub(super) struct CommandBirth {
    /// Our own process: the command ends when we do.
    pub(super) parent: Pid,
    /// The proofs of life that the command inherits beyond exec.
    pub(super) proofs: Vec<OwnedFd>,
    /// Where to announce the process group, and how.
    pub(super) guardian: Option<OwnedFd>,
    /// The terminal that the command's group is to own.
    pub(super) terminal: Option<OwnedFd>,
    /// The signals that the command finds blocked and ignored.
    pub(super) inherited: &'static Inherited,
    /// Executes a command with an environment that is to name its own process.
    pub(super) listener: Option<Listener>,
}

/// Has `command` start in a process group of its own, ready for what `birth` says.
pub(super) fn prepare(command: &mut Command, mut birth: CommandBirth) {
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe functions may be called, because other
    // threads' locks (the allocator's among them) may be held for ever there. `in_child` and all
    // it calls keep to system calls on descriptors that `birth` owns.
    unsafe { command.pre_exec(move || birth.in_child()) };
}

impl CommandBirth {
    fn in_child(&mut self) -> io::Result<()> {
        self.die_with_the_parent()?;
        let me = rustix::process::getpid();
        if let Some(guardian) = &self.guardian {
            announce(me, guardian)?;
        }
        for proof in &self.proofs {
            rustix::io::fcntl_setfd(proof, rustix::io::FdFlags::empty())?;
        }
        if let Some(terminal) = &self.terminal {
            // If the terminal is gone by now, the command will find out for itself.
            let _ = set_foreground(terminal, me);
        }
        // The last: what the command is to ignore or to find blocked was needed until now.
        self.inherited.hand_on();
        match &mut self.listener {
            Some(listener) => Err(listener.execute(me)),
            None => Ok(()),
        }
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
    let message = super::guardian::GuardianMessage::Group(group).encode();
    // std has put SIGPIPE back to its default by now, which is to die of a pipe that no process
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

// ── the signals that this process was started with ──────────────────────────────────────────────

/// Which signals were blocked and which were ignored when this process was started. The command
/// gets them so, whatever this process needs for itself.
pub(super) struct Inherited {
    blocked: libc::sigset_t,
    /// Bit 0 is signal 1.
    ignored: u64,
}

/// The signals that have numbers of their own; those above have no meaning that is fixed.
const SIGNALS: std::ops::Range<i32> = 1..32;

impl Inherited {
    /// Noted at the first call, which is to come before any handler is installed.
    pub(super) fn get() -> &'static Inherited {
        static INHERITED: OnceLock<Inherited> = OnceLock::new();
        INHERITED.get_or_init(|| Inherited { blocked: mask(), ignored: ignored() })
    }

    /// Whether this process was started to ignore the signal.
    pub(super) fn ignores(&self, signal: i32) -> bool {
        self.ignored >> (signal - 1) & 1 == 1
    }

    /// Gives this process, which is about to become a command, what was inherited. What is still
    /// ignored here stays so by itself; handlers end with exec.
    fn hand_on(&self) {
        for signal in SIGNALS.filter(|&signal| self.ignores(signal)) {
            // SAFETY: `signal` is a signal's number, and ignoring needs no handler; the call is
            // async-signal-safe. KILL and STOP are never ignored.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        // SAFETY: the mask is the one that `pthread_sigmask` gave; the old one is not asked for,
        // which a null pointer says. The call is async-signal-safe.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.blocked, std::ptr::null_mut()) };
    }
}

/// This thread's blocked signals.
fn mask() -> libc::sigset_t {
    // SAFETY: all zeroes is a valid value of the plain C type `sigset_t`.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: it writes into the `sigset_t` that the pointer came from; a null pointer says that
    // nothing is changed.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask) };
    mask
}

/// The signals that are ignored, or were before Rust's runtime changed that.
fn ignored() -> u64 {
    let mut ignored = 0;
    for signal in SIGNALS {
        let is_ignored = match (signal, SIGPIPE_AT_START.load(Relaxed)) {
            (libc::SIGPIPE, noted) => noted == IGNORED,
            (signal, _) => is_ignored(signal),
        };
        ignored |= u64::from(is_ignored) << (signal - 1);
    }
    ignored
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeroes is a valid value of the plain C type `sigaction`.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it writes into the `sigaction` that the pointer came from; a null pointer says that
    // nothing is changed.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// What SIGPIPE was when this process was started: Rust's runtime ignores it before `main`.
static SIGPIPE_AT_START: AtomicU8 = AtomicU8::new(0);
const IGNORED: u8 = 1;

/// The loader calls it before Rust's runtime begins. Where it does not, SIGPIPE counts as not
/// ignored.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the section is an array of pointers to functions of this type, which the C runtime calls
// once, with arguments that they may ignore.
#[unsafe(link_section = ".init_array")]
static NOTE_SIGPIPE: extern "C" fn() = {
    extern "C" fn note_sigpipe() {
        SIGPIPE_AT_START.store(u8::from(is_ignored(libc::SIGPIPE)), Relaxed);
    }
    note_sigpipe
};

/// Lets these signals reach this thread and those that it starts, though they were blocked.
pub(super) fn unblock(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: `set` is a `sigset_t` of this frame; the old mask is not asked for, which a null
    // pointer says.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
}

/// Async-signal-safe.
fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all zeroes is a valid value of the plain C type `sigset_t`.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: it writes into the `sigset_t` that the pointer came from.
    unsafe { libc::sigemptyset(&mut set) };
    for &signal in signals {
        // SAFETY: `set` was emptied above; a number that is no signal's is refused.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    set
}

// ── sockets that are handed over ────────────────────────────────────────────────────────────────

/// Executes a command to which sockets are handed over (sd_listen_fds(3)): its environment names
/// the process that is to take them; its number is known in that process only. std fixes a
/// command's environment before.
pub(super) struct Listener {
    program: CString,
    /// Ended by a null pointer each, as exec wants them. All they point to is leaked.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// Where the process id belongs, inside one of `environment`.
    pid: *mut u8,
}

// SAFETY: what the pointers point to is never freed, and only `execute` writes there, which has
// the listener alone; it runs in a process of its own.
unsafe impl Send for Listener {}
// SAFETY: as above; nothing is written through a shared reference.
unsafe impl Sync for Listener {}

const LISTEN_PID: &str = "LISTEN_PID";

/// The digits of the largest process id, and the byte that ends the text.
const PID_ROOM: usize = 11;

impl Listener {
    /// One for `command` in this environment, of which it replaces LISTEN_PID. `None` where there
    /// is a NUL in the middle of anything.
    pub(super) fn new(
        command: &[OsString],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Option<Listener> {
        let leak = |text: &[u8]| Some(CString::new(text).ok()?.into_raw().cast_const());
        let program = CString::new(command.first()?.as_bytes()).ok()?;
        let arguments = command.iter().map(|argument| leak(argument.as_bytes()));
        let arguments = arguments.chain([Some(std::ptr::null())]).collect::<Option<_>>()?;
        let others = environment.into_iter().filter(|(name, _)| !is_about_listening(name));
        let others =
            others.map(|(name, value)| leak(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
        let mut environment = others.collect::<Option<Vec<_>>>()?;
        let mut text = format!("{LISTEN_PID}=").into_bytes();
        let before = text.len();
        text.resize(before + PID_ROOM, 0);
        let text: *mut u8 = Box::leak(text.into_boxed_slice()).as_mut_ptr();
        // SAFETY: `before` bytes and room for a process id follow `text`.
        let pid = unsafe { text.add(before) };
        environment.extend([text.cast_const().cast(), std::ptr::null()]);
        Some(Listener { program, arguments, environment, pid })
    }

    /// Becomes the command, or answers why not. Only between fork and exec.
    fn execute(&mut self, me: Pid) -> io::Error {
        let mut number = me.as_raw_nonzero().get().unsigned_abs();
        let mut digits = [0; PID_ROOM];
        let mut first = PID_ROOM - 1;
        while number > 0 {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        for (at, digit) in digits[first..].iter().enumerate() {
            // SAFETY: `digits`, with its end, is as long as the room that `new` made there.
            let place = unsafe { self.pid.add(at) };
            // SAFETY: it lies in that room, which nothing else reads or writes in this process.
            unsafe { place.write(*digit) };
        }
        // SAFETY: this process has one thread, and nothing of it reads the environment any more
        // but exec; the array ends with a null pointer and is never freed.
        unsafe { environ = self.environment.as_ptr() };
        // SAFETY: the program ends with a NUL and the array with a null pointer. As std does, and
        // nothing that allocates: the C library looks for the program on its stack.
        unsafe { libc::execvp(self.program.as_ptr(), self.arguments.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// The process's number, or an id of it that would contradict the number.
fn is_about_listening(name: &OsStr) -> bool {
    name == LISTEN_PID || name == "LISTEN_PIDFDID"
}

// SAFETY: POSIX names and types it so.
unsafe extern "C" {
    static mut environ: *const *const c_char;
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
        let set = set_of(&[libc::SIGTTOU]);
        let mut before = set;
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
mod tests;

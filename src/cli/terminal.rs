//! The controlling terminal: which group has it, and lending it to the command.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    process::{Pid, getpgrp, test_kill_process_group},
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};

use super::sys;

/// Our controlling terminal.
pub(super) struct Terminal {
    device: OwnedFd,
    ours: Pid,
    /// How it was set up when we came.
    modes: Option<Termios>,
}

impl Terminal {
    /// The controlling terminal, if we have one.
    pub(super) fn controlling() -> Option<Terminal> {
        let device: OwnedFd = File::options().read(true).write(true).open("/dev/tty").ok()?.into();
        let modes = tcgetattr(&device).ok();
        Some(Terminal { device, ours: getpgrp(), modes })
    }

    /// The process group in the foreground, if there is one.
    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.device).ok()
    }

    /// Whether our own group is in the foreground.
    pub(super) fn is_ours(&self) -> bool {
        self.foreground() == Some(self.ours)
    }

    /// Whether `group` is in the foreground.
    pub(super) fn is_of(&self, group: Pid) -> bool {
        self.foreground() == Some(group)
    }

    /// A descriptor of it for the command's first steps.
    pub(super) fn descriptor(&self) -> Option<OwnedFd> {
        self.device.as_fd().try_clone_to_owned().ok()
    }

    /// Puts `group` into the foreground.
    pub(super) fn lend_to(&self, group: Pid) {
        let _ = sys::set_foreground(&self.device, group);
    }

    /// Puts our group back into the foreground, if `group` or no living process is there. If the shell
    /// or another job has it meanwhile, it stays theirs.
    pub(super) fn take_back_from(&self, group: Pid) {
        let Some(foreground) = self.foreground() else { return };
        let is_gone = || test_kill_process_group(foreground) == Err(rustix::io::Errno::SRCH);
        if foreground == group || is_gone() {
            let _ = sys::set_foreground(&self.device, self.ours);
        }
    }

    /// Sets it up as it was when we came: a command that was killed had no time to.
    pub(super) fn restore_modes(&self) {
        if self.is_ours()
            && let Some(modes) = &self.modes
        {
            let _ = tcsetattr(&self.device, OptionalActions::Drain, modes);
        }
    }
}

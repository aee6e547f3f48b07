//! What this bench started and made on disk, and its end on every way out: drop, panic, Ctrl-C.
//!
//! (Children carry a parent-death signal too, for a SIGKILL that nothing here survives.)

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::failure::{BenchFailure, Result};

static LEFT_TO_END: Mutex<LeftToEnd> =
    Mutex::new(LeftToEnd { children: Vec::new(), directories: Vec::new() });

struct LeftToEnd {
    /// Each with the signal that ends it.
    children: Vec<(Pid, Signal)>,
    directories: Vec<PathBuf>,
}

/// From now on, what ends this process by a signal or a panic first ends what the bench started.
pub(crate) fn on_every_way_out() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(BenchFailure::io("cannot watch for signals"))?;
    thread::Builder::new()
        .name("bench-signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Kept locked: nothing may be started or reaped any more.
                let left = LEFT_TO_END.lock();
                left.end();
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                std::process::exit(128 + signal);
            }
        })
        .map_err(BenchFailure::io("cannot start the thread that watches for signals"))?;
    // The program's own hook exits, so nothing would be dropped.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Unless it is this thread that holds it.
        if let Some(left) = LEFT_TO_END.try_lock_for(Duration::from_secs(1)) {
            left.end();
        }
        report(panic);
    }));
    Ok(())
}

impl LeftToEnd {
    fn end(&self) {
        for &(child, signal) in &self.children {
            let _ = kill_process(child, signal);
        }
        let patience = Instant::now() + PATIENCE;
        for &(child, _) in &self.children {
            while matches!(waitpid(Some(child), WaitOptions::NOHANG), Ok(None)) {
                if Instant::now() > patience {
                    let _ = kill_process(child, Signal::KILL);
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        for directory in &self.directories {
            let _ = fs::remove_dir_all(directory);
        }
    }

    fn forget(&mut self, pid: Pid) {
        self.children.retain(|&(child, _)| child != pid);
    }
}

/// How long a child may take that is not killed outright.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child process that is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnChild {
    child: Child,
    end_with: Signal,
}

impl OwnChild {
    /// `end_with` is the signal that it gets then; another than SIGKILL if it cleans up on it.
    pub(crate) fn start(command: &mut Command, end_with: Signal) -> io::Result<OwnChild> {
        let mut left = LEFT_TO_END.lock();
        let child = OwnChild { child: command.spawn()?, end_with };
        left.children.push((child.pid(), end_with));
        Ok(child)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn get_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // Under the lock, so that no signal is sent to a number that is free again.
        let mut left = LEFT_TO_END.lock();
        let status = self.child.try_wait().ok()??;
        left.forget(self.pid());
        Some(status)
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // Not reaped before the lock is held: until then the number stays this child's.
        let _ = kill_process(self.pid(), self.end_with);
        let patience = Instant::now() + PATIENCE;
        while self.end_with != Signal::KILL && self.ended().is_none() {
            if Instant::now() > patience {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let mut left = LEFT_TO_END.lock();
        // Both do nothing to a child that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
        left.forget(self.pid());
    }
}

/// A directory of this bench's own, removed with all that is in it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Scratch> {
        let base = std::env::temp_dir();
        let mut left = LEFT_TO_END.lock();
        for attempt in 0..u32::MAX {
            let path = base.join(format!("tierlock-bench-{}-{attempt}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    left.directories.push(path.clone());
                    return Ok(Scratch(path));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(BenchFailure::io(format!("cannot make {}", path.display()))(error));
                }
            }
        }
        unreachable!("four billion directories are there");
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&path)
            .map_err(BenchFailure::io(format!("cannot make {}", path.display())))?;
        Ok(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut left = LEFT_TO_END.lock();
        let _ = fs::remove_dir_all(&self.0);
        left.directories.retain(|directory| *directory != self.0);
    }
}

#[cfg(test)]
mod tests;

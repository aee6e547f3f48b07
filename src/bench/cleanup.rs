//! What this bench started and made on disk, and its end on every way out: drop, panic, Ctrl-C.
//!
//! (Children carry a parent-death signal too, for a SIGKILL that nothing here survives.)

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::failure::{Failure, Result};

static LEFT_TO_END: Mutex<LeftToEnd> =
    Mutex::new(LeftToEnd { children: Vec::new(), directories: Vec::new() });

struct LeftToEnd {
    children: Vec<Pid>,
    directories: Vec<PathBuf>,
}

/// From now on, what ends this process by a signal or a panic first ends what the bench started.
pub(crate) fn on_every_way_out() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(Failure::io("cannot watch for signals"))?;
    std::thread::Builder::new()
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
        .map_err(Failure::io("cannot start the thread that watches for signals"))?;
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
        for &child in &self.children {
            let _ = kill_process(child, Signal::KILL);
        }
        for &child in &self.children {
            let _ = waitpid(Some(child), WaitOptions::empty());
        }
        for directory in &self.directories {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// A child process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnChild(Child);

impl OwnChild {
    pub(crate) fn start(command: &mut std::process::Command) -> io::Result<OwnChild> {
        let mut left = LEFT_TO_END.lock();
        let child = OwnChild(command.spawn()?);
        left.children.push(child.pid());
        Ok(child)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub(crate) fn get_mut(&mut self) -> &mut Child {
        &mut self.0
    }

    /// How it ended, if it has.
    #[cfg(feature = "peers")]
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        // Under the lock, so that no signal is sent to a number that is free again.
        let mut left = LEFT_TO_END.lock();
        let status = self.0.try_wait().ok()??;
        left.children.retain(|&child| child != self.pid());
        Some(status)
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        let pid = self.pid();
        let _ = self.0.kill();
        // Reaped only under the lock; by now it dies without anyone's help.
        let mut left = LEFT_TO_END.lock();
        let _ = self.0.wait();
        left.children.retain(|&child| child != pid);
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
                    return Err(Failure::io(format!("cannot make {}", path.display()))(error));
                }
            }
        }
        unreachable!("somebody made four billion directories");
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&path)
            .map_err(Failure::io(format!("cannot make {}", path.display())))?;
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
mod tests {
    use super::*;

    #[test]
    fn scratch_goes_with_its_content() {
        let scratch = Scratch::new().unwrap();
        let inside = scratch.directory("a/b").unwrap();
        fs::write(inside.join("file"), "x").unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn dropped_child_is_dead_and_forgotten() {
        let child = OwnChild::start(std::process::Command::new("sleep").arg("1000")).unwrap();
        let pid = child.pid();
        assert!(LEFT_TO_END.lock().children.contains(&pid));
        drop(child);
        assert!(!LEFT_TO_END.lock().children.contains(&pid));
        assert!(rustix::process::test_kill_process(pid).is_err(), "reaped");
    }
}

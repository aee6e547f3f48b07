//! Servers in child processes, started for one run on a free port of loopback.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::sys;
use crate::bench::{
    cleanup::OwnChild,
    failure::{BenchFailure, Result},
    worker,
};

/// A program that a child process becomes, so that it ends with the bench like any child of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Become {
    program: PathBuf,
    arguments: Vec<String>,
    /// The user and the group that it runs as, if not ours.
    user: Option<(u32, u32)>,
    /// The signal that ends it.
    end_with: i32,
}

impl Become {
    pub(crate) fn new(program: &Path, arguments: impl IntoIterator<Item: Into<String>>) -> Become {
        Become {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            user: None,
            end_with: Signal::KILL.as_raw(),
        }
    }

    /// As this user and group.
    pub(crate) fn by(self, user: Option<(u32, u32)>) -> Become {
        Become { user, ..self }
    }

    /// Ended by a signal that it cleans up on.
    pub(crate) fn ended_by(self, signal: Signal) -> Become {
        Become { end_with: signal.as_raw(), ..self }
    }

    fn end_with(&self) -> Signal {
        Signal::from_named_raw(self.end_with).unwrap_or(Signal::KILL)
    }

    /// Starts it in a child process, without input or output.
    pub(crate) fn start(self) -> Result<OwnChild> {
        self.start_with(Stdio::null)
    }

    /// The same with what it says on its standard output and standard error, to be read.
    pub(crate) fn start_heard(self) -> Result<OwnChild> {
        self.start_with(Stdio::piped)
    }

    fn start_with(self, output: fn() -> Stdio) -> Result<OwnChild> {
        let signal = self.end_with();
        let mut command = worker::command(&self)?;
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        OwnChild::start(&mut command, signal)
            .map_err(BenchFailure::io(format!("cannot start {}", self.program.display())))
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Result<()> {
        let name = self.program.display().to_string();
        let mut child = self.start()?;
        loop {
            match child.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(BenchFailure::other(format!("{name} failed: {status}")));
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl worker::ChildJob for Become {
    fn work(self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let error = sys::exec(&mut command, self.end_with());
        Err(BenchFailure::io(format!("cannot run {}", self.program.display()))(error))
    }
}

/// A program that serves on a port.
pub(crate) struct Server {
    pub(crate) port: u16,
    child: OwnChild,
}

impl Server {
    /// Starts the program that `become` makes for a port, and waits until it listens there. It
    /// ends when this is dropped, and with the bench in any case.
    pub(crate) fn start(program: impl Fn(u16) -> Become) -> Result<Server> {
        let mut last = None;
        // Another process may take the port that was free a moment ago.
        for _ in 0..3 {
            let port = free_port()?;
            match Server::start_on(port, program(port)) {
                Ok(server) => return Ok(server),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.expect("it was tried"))
    }

    fn start_on(port: u16, program: Become) -> Result<Server> {
        let name = program.program.display().to_string();
        let child = program.start()?;
        let mut server = Server { port, child };
        let address = (Ipv4Addr::LOCALHOST, port);
        server
            .until_ready(|| TcpStream::connect(address).map_err(|error| error.to_string()))
            .map_err(|message| BenchFailure::other(format!("{name} {message}")))?;
        Ok(server)
    }

    /// Tries until it succeeds, while the server lives and patience lasts.
    pub(crate) fn until_ready<T>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, String>,
    ) -> Result<T, String> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.ended() {
                return Err(format!("ended at once: {status}"));
            }
            match attempt() {
                Ok(ready) => return Ok(ready),
                Err(error) if Instant::now() > patience => {
                    return Err(format!("is not ready after {} s: {error}", PATIENCE.as_secs()));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Where an installed program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .chain(versions_of("/usr/lib/postgresql"))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// `DIRECTORY/<version>/bin`, as Debian lays out what it keeps several versions of.
fn versions_of(directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let versions = std::fs::read_dir(Path::new(directory)).into_iter().flatten();
    versions.filter_map(|version| Some(version.ok()?.path().join("bin")))
}

pub(crate) fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(BenchFailure::io("cannot find a free port"))
}

/// A port for what is ended and started again on the same one.
pub(crate) fn free_port_for_long() -> Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports_for_long().find(is_free).ok_or_else(|| BenchFailure::other("no port is free"))
}

/// Ports below those that the system gives to clients, each once.
pub(crate) fn ports_for_long() -> impl Iterator<Item = u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run has others.
    let start = std::process::id() % 1_000 * 20;
    let port = move |_| 10_000 + ((start + u32::from(NEXT.fetch_add(1, Relaxed))) % 20_000) as u16;
    (0..20_000).map(port)
}

#[cfg(test)]
mod tests;

//! What the measurements stand on: directories, a runtime, a leader; made when first asked for.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::runtime::Runtime;

use super::{
    cleanup::Scratch,
    failure::{Failure, Result},
    human, machine,
    peers::{Missing, Peers},
};
use crate::{
    LockManager, LockManagerBuilder,
    host::{Leader, Secret},
};

/// Shared by all heats of a run. Fields are dropped in order: what runs, then what it runs on.
pub(crate) struct Grounds {
    pub(crate) peers: Peers,
    leader: Option<Bed>,
    secret_file: Option<PathBuf>,
    runtime: Option<Arc<Runtime>>,
    directories_made: u32,
    /// What was not measured for want of memory or time, in sentences.
    pub(crate) left_out: Vec<String>,
    scratch: Scratch,
}

impl Grounds {
    pub(crate) fn new(peers: bool) -> Result<Grounds> {
        Ok(Grounds {
            peers: Peers::new(peers),
            leader: None,
            secret_file: None,
            runtime: None,
            directories_made: 0,
            left_out: Vec::new(),
            scratch: Scratch::new()?,
        })
    }

    /// A directory of this run; the same one for the same name.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        self.scratch.directory(name)
    }

    /// A directory that was not there before.
    pub(crate) fn new_directory(&mut self, name: &str) -> Result<PathBuf> {
        self.directories_made += 1;
        self.directory(&format!("{name}-{}", self.directories_made))
    }

    /// The secret of every leader of this run.
    pub(crate) fn secret_file(&mut self) -> Result<PathBuf> {
        if let Some(secret_file) = &self.secret_file {
            return Ok(secret_file.clone());
        }
        let secret_file = self.scratch.path().join("secret");
        Secret::create(&secret_file)?;
        self.secret_file = Some(secret_file.clone());
        Ok(secret_file)
    }

    /// The runtime of every asynchronous caller: multi-threaded, with two workers.
    pub(crate) fn runtime(&mut self) -> Result<Arc<Runtime>> {
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.clone());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_WORKERS as usize)
            .thread_name("bench-caller")
            .enable_all()
            .build()
            .map(Arc::new)
            .map_err(Failure::io("cannot start a runtime"))?;
        self.runtime = Some(runtime.clone());
        Ok(runtime)
    }

    /// The leader of this run, in this process, on loopback.
    pub(crate) fn leader(&mut self) -> Result<&Bed> {
        if self.leader.is_none() {
            let secret_file = self.secret_file()?;
            self.leader = Some(Bed::start(&self.scratch, secret_file)?);
        }
        Ok(self.leader.as_ref().expect("made above"))
    }

    /// Whether so many bytes of memory can be had; if not, `what` is noted as left out.
    pub(crate) fn has_memory_for(&mut self, what: &str, bytes: u64) -> bool {
        let available = machine::memory_available();
        if available >= bytes {
            return true;
        }
        self.left_out.push(format!(
            "{what}: it takes some {} of memory, and {} are free",
            human::bytes(bytes as f64),
            human::bytes(available as f64)
        ));
        false
    }

    /// What could not be compared with here.
    pub(crate) fn missing(&self) -> Vec<Missing> {
        self.peers.missing()
    }
}

/// Threads of the runtime that asynchronous callers are measured on.
pub(crate) const RUNTIME_WORKERS: u32 = 2;

/// A leader, and what it takes to reach it.
pub(crate) struct Bed {
    leader: Leader,
    secret_file: PathBuf,
}

impl Bed {
    fn start(scratch: &Scratch, secret_file: PathBuf) -> Result<Bed> {
        let leader = Leader::builder()
            .listen("127.0.0.1:0")
            .state_dir(scratch.directory("leader")?)
            .init(true)
            .accept_file_system("tmpfs")
            .secret_file(&secret_file)
            .start()?;
        Ok(Bed { leader, secret_file })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.leader.local_addr()
    }

    /// A client with a connection and a session of its own.
    pub(crate) fn connect(&self) -> Result<LockManager> {
        Ok(self.builder().open()?)
    }

    /// The same for the tasks of this runtime, which reads their answers.
    pub(crate) fn connect_on(&self, runtime: &Runtime) -> Result<LockManager> {
        Ok(self.builder().runtime(runtime.handle().clone()).open()?)
    }

    /// The same with a directory.
    pub(crate) fn connect_with(&self, directory: &Path) -> Result<LockManager> {
        Ok(self.builder().directory(directory).open()?)
    }

    fn builder(&self) -> LockManagerBuilder {
        LockManager::builder()
            .leaders([self.address().to_string()])
            .secret_file(&self.secret_file)
            .label("bench")
            .time_to_live(Duration::from_secs(30))
    }

    #[cfg(feature = "peers")]
    pub(crate) fn secret_file(&self) -> &Path {
        &self.secret_file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_is_left_out_with_a_sentence() {
        let mut grounds = Grounds::new(false).unwrap();
        assert!(grounds.has_memory_for("little", 1));
        assert!(grounds.left_out.is_empty());
        assert!(!grounds.has_memory_for("killed, 8 EiB", 1 << 63));
        let [sentence] = &grounds.left_out[..] else { panic!("{:?}", grounds.left_out) };
        assert!(sentence.starts_with("killed, 8 EiB: it takes some "), "{sentence}");
    }
}

//! What the measurements stand on: directories, a runtime, a leader; made when first asked for.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::runtime::Runtime;

use tierlock::{Leader, LockManager, LockManagerBuilder, Secret};

use super::{
    cleanup::Scratch,
    failure::{BenchFailure, Result},
    tasks::RUNTIME_WORKERS,
};

/// Shared by all heats of a run. Fields are dropped in order: what runs, then what it runs on.
pub(crate) struct Grounds {
    leader: Option<Bed>,
    secret_file: Option<PathBuf>,
    runtime: Option<Arc<Runtime>>,
    scratch: Scratch,
}

impl Grounds {
    pub(crate) fn new() -> Result<Grounds> {
        Ok(Grounds { leader: None, secret_file: None, runtime: None, scratch: Scratch::new()? })
    }

    /// A directory of this run; the same one for the same name.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        self.scratch.directory(name)
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
            .map_err(BenchFailure::io("cannot start a runtime"))?;
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
}

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

    pub(crate) fn address(&self) -> String {
        self.leader.local_addr().to_string()
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
            .leaders([self.address()])
            .secret_file(&self.secret_file)
            .label("bench")
            .time_to_live(Duration::from_secs(30))
    }
}

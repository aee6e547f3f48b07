//! Reads a leader's secret file again, now and then and when it is told to.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::host::net::tls::Secret;

/// How often the file is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 60_000 });

/// The thread that reads the file, so that no renewal waits for a disk. It ends once this is
/// dropped.
#[derive(Debug)]
pub(super) struct Reloader {
    ask: mpsc::Sender<()>,
}

/// What a look at the file brought.
pub(super) enum News {
    /// It has other secrets than before.
    Secret(Secret),
    /// It cannot be used, so what was read of it last stays in force.
    Trouble(String),
}

impl Reloader {
    /// Looks at the file that `known` was read from; `None` if that cannot be read again.
    pub(super) fn start(
        known: Secret,
        tell: impl Fn(News) + Send + 'static,
    ) -> io::Result<Option<Reloader>> {
        let Some(file) = known.file().map(Path::to_owned) else { return Ok(None) };
        let (ask, asked) = mpsc::channel();
        let mut look = Look { file, known, trouble: None };
        thread::Builder::new().name("tierlock-secrets".into()).spawn(move || {
            loop {
                match asked.recv_timeout(LOOK_AGAIN) {
                    // It is told again what is wrong.
                    Ok(()) => look.trouble = None,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                look.look().into_iter().for_each(&tell);
            }
        })?;
        Ok(Some(Reloader { ask }))
    }

    /// Has it look now.
    pub(super) fn ask(&self) {
        // A thread that is gone has panicked, and said so.
        let _ = self.ask.send(());
    }
}

struct Look {
    file: PathBuf,
    known: Secret,
    /// What was told of the file last, if it was not good.
    trouble: Option<String>,
}

impl Look {
    /// What is new since the last look.
    fn look(&mut self) -> Option<News> {
        let read = Secret::read(&self.file).map_err(|error| error.to_string());
        match read {
            Ok(secret) => {
                self.trouble = None;
                let is_new = secret != self.known;
                self.known = secret;
                is_new.then(|| News::Secret(self.known.clone()))
            }
            Err(trouble) if self.trouble.as_ref() == Some(&trouble) => None,
            Err(trouble) => {
                self.trouble = Some(trouble.clone());
                Some(News::Trouble(trouble))
            }
        }
    }
}

#[cfg(test)]
mod tests;

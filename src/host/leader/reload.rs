//! Reads the files of what a leader accepts again, now and then and when it is told to: the secrets, and
//! the serials that are revoked.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crate::{
    error::LockError,
    host::net::{acceptance::Acceptance, serials::RevokedSerials, tls::Secret},
};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 60_000 });

/// The thread that reads the files, so that no renewal waits for a disk. It ends once this is
/// dropped.
#[derive(Debug)]
pub(super) struct Reloader {
    ask: mpsc::Sender<()>,
    has_secret_file: bool,
}

/// What a look at the files brought.
pub(super) enum News {
    /// What is accepted from now on. Told at each look, whether or not it is new: by now a credential may
    /// have ended.
    Accepted { accepted: Acceptance, is_new_secret: bool },
    /// This file cannot be used, so what was read of it last stays in force.
    Trouble(LookedFile, String),
}

/// A file that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookedFile {
    Secret,
    Revoked,
}

impl Reloader {
    /// Looks at the files that `known` was read from.
    pub(super) fn start(
        known: Acceptance,
        revoked: Option<PathBuf>,
        tell: impl Fn(News) + Send + 'static,
    ) -> io::Result<Reloader> {
        let (ask, asked) = mpsc::channel();
        let mut look = Look::new(known, revoked);
        let has_secret_file = look.secret.is_some();
        thread::Builder::new().name("tierlock-secrets".into()).spawn(move || {
            loop {
                match asked.recv_timeout(LOOK_AGAIN) {
                    // It is told again what is wrong.
                    Ok(()) => look.forget_troubles(),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                look.look().into_iter().for_each(&tell);
            }
        })?;
        Ok(Reloader { ask, has_secret_file })
    }

    /// Has it look now.
    pub(super) fn ask(&self) {
        // A thread that is gone has panicked, and said so.
        let _ = self.ask.send(());
    }

    /// Whether the secret can be read again.
    pub(super) fn has_secret_file(&self) -> bool {
        self.has_secret_file
    }
}

struct Look {
    known: Acceptance,
    secret: Option<WatchedFile>,
    revoked: Option<WatchedFile>,
}

/// One of the files.
struct WatchedFile {
    path: PathBuf,
    /// What was told of it last, if it was not good.
    trouble: Option<String>,
}

impl WatchedFile {
    fn new(path: &Path) -> WatchedFile {
        WatchedFile { path: path.to_owned(), trouble: None }
    }

    /// What it has now; or what is wrong with it, if that is news.
    fn read<T>(
        &mut self,
        read: impl FnOnce(&Path) -> Result<T, LockError>,
    ) -> Result<T, Option<String>> {
        match read(&self.path).map_err(|error| error.to_string()) {
            Ok(read) => {
                self.trouble = None;
                Ok(read)
            }
            Err(trouble) if self.trouble.as_ref() == Some(&trouble) => Err(None),
            Err(trouble) => {
                self.trouble = Some(trouble.clone());
                Err(Some(trouble))
            }
        }
    }
}

impl Look {
    fn new(known: Acceptance, revoked: Option<PathBuf>) -> Look {
        let secret = known.secret.file().map(WatchedFile::new);
        Look { known, secret, revoked: revoked.as_deref().map(WatchedFile::new) }
    }

    fn forget_troubles(&mut self) {
        for file in [&mut self.secret, &mut self.revoked].into_iter().flatten() {
            file.trouble = None;
        }
    }

    /// What is in force from now on, and what is wrong.
    fn look(&mut self) -> Vec<News> {
        let Look { known, secret, revoked } = self;
        let mut news = Vec::new();
        let mut is_new_secret = false;
        if let Some(file) = secret {
            match file.read(|path| Secret::read(path)) {
                Ok(read) => {
                    is_new_secret = read != known.secret;
                    known.secret = read;
                }
                Err(trouble) => {
                    news.extend(trouble.map(|text| News::Trouble(LookedFile::Secret, text)));
                }
            }
        }
        if let Some(file) = revoked {
            match file.read(RevokedSerials::read) {
                Ok(read) => known.revoked = Arc::new(read),
                Err(trouble) => {
                    news.extend(trouble.map(|text| News::Trouble(LookedFile::Revoked, text)));
                }
            }
        }
        news.push(News::Accepted { accepted: known.clone(), is_new_secret });
        news
    }
}

#[cfg(test)]
mod tests;

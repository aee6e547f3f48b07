//! Elections: what a leader says of itself at the scope in force, and what observers are told.
//!
//! | scope in force | the value lies in | an observer |
//! |---|---|---|
//! | thread | the entry's stage | is woken by each change |
//! | process | the directory's file of the name; it counts while the slot bears its token | looks, ever more seldom up to every 50 ms |
//! | host | the lease, at the service | is told by the service |

#[cfg(feature = "process")]
mod directory;

use std::{future::poll_fn, sync::Arc, time::Duration};

#[cfg(feature = "process")]
use self::directory::DirectoryNews;
#[cfg(feature = "process")]
use crate::process::AnnouncedFile;
use crate::{
    clock,
    elected::{ElectedLeader, LeaderTold},
    error::Result,
    fork,
    host::service::LeaderNews,
    scope::Scope,
    token::Token,
};

use super::{by, ground::NameEntry, named::Named};

/// An announcement in force; to be ended before the lock is released.
pub(crate) struct Announced {
    entry: Arc<NameEntry>,
    token: Token,
    /// A forked child ends nothing.
    generation: u64,
    #[cfg(feature = "process")]
    file: Option<AnnouncedFile>,
}

impl Announced {
    /// The leader leaves.
    pub(crate) fn end(self) {
        if self.generation != fork::generation() {
            return;
        }
        #[cfg(feature = "process")]
        if let Some(file) = &self.file {
            file.end();
        }
        self.entry.stage().leave(self.token);
    }
}

impl Named {
    /// Has observers told of the holder of this lock, at this scope and with this token. `None`: its
    /// lease carries what it says.
    pub(crate) fn announce(
        &self,
        scope: Scope,
        token: Token,
        value: &Arc<[u8]>,
    ) -> Result<Option<Announced>> {
        if scope == Scope::Host {
            return Ok(None);
        }
        let (entry, generation) = (self.entry.clone(), fork::generation());
        #[cfg(feature = "process")]
        if scope == Scope::Process
            && let Some(directory) = self.entry.directory()
        {
            let file = directory.announce(&entry.name, token, value).map_err(self.about(scope))?;
            entry.stage().wake_all();
            return Ok(Some(Announced { entry, token, generation, file: Some(file) }));
        }
        entry.stage().enter(ElectedLeader::new(token, value.clone()));
        Ok(Some(Announced {
            entry,
            token,
            generation,
            #[cfg(feature = "process")]
            file: None,
        }))
    }
}

/// What one observer has been told so far.
pub(crate) struct Observation {
    named: Arc<Named>,
    told: LeaderTold,
    from: NewsFrom,
}

/// Where it hears of changes: at the scope in force, which only grows.
enum NewsFrom {
    Nowhere,
    /// The number of the next change at the entry's stage.
    Stage(u64),
    #[cfg(feature = "process")]
    Directory(DirectoryNews),
    Service(Box<dyn LeaderNews>),
}

impl Observation {
    pub(crate) fn new(named: Arc<Named>) -> Observation {
        Observation { named, told: LeaderTold::Nothing, from: NewsFrom::Nowhere }
    }

    /// The present leader first, then each change. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<ElectedLeader>> {
        loop {
            // Before the look: a change that comes after it is heard.
            let listener = self.named.entry.stage().listen();
            let news = match self.look()? {
                LeaderTold::Now(news) => news,
                LeaderTold::Nothing => match &mut self.from {
                    NewsFrom::Service(news) => {
                        let told = poll_fn(|cx| news.poll_next(cx)).await;
                        told.map_err(self.named.about(Scope::Host))?
                    }
                    from => {
                        by(clock::now() + from.nap(), listener).await;
                        continue;
                    }
                },
            };
            let now = LeaderTold::Now(news.clone());
            if self.told != now {
                self.told = now;
                return Ok(news);
            }
        }
    }

    /// The next change that is known by now.
    fn look(&mut self) -> Result<LeaderTold> {
        let named = &self.named;
        let scope = named.scope().max(named.entry.scope_in_force());
        if scope > Scope::Thread {
            named.check_open(scope)?;
        }
        if matches!(self.from, NewsFrom::Service(_)) {
            return Ok(LeaderTold::Nothing);
        }
        if scope == Scope::Host || self.is_wide()? {
            let about = named.about(Scope::Host);
            let service = named.reach.service().map_err(&about)?;
            let news = service.clone().observe(named.name()).map_err(&about)?;
            self.from = NewsFrom::Service(news);
            return Ok(LeaderTold::Nothing);
        }
        #[cfg(feature = "process")]
        if scope == Scope::Process
            && let Some(directory) = named.entry.directory()
            && let Some(slot) = named.entry.slot()
        {
            if !matches!(self.from, NewsFrom::Directory(_)) {
                self.from = NewsFrom::Directory(DirectoryNews::default());
            }
            let NewsFrom::Directory(news) = &mut self.from else { unreachable!("it is now") };
            return news.look(named, (directory, slot), &self.told);
        }
        let stage = named.entry.stage();
        match self.from {
            NewsFrom::Stage(next) => Ok(match stage.change(next) {
                Some((change, number)) => {
                    self.from = NewsFrom::Stage(number + 1);
                    LeaderTold::Now(change)
                }
                None => LeaderTold::Nothing,
            }),
            _ => {
                let (present, next) = stage.present();
                self.from = NewsFrom::Stage(next);
                Ok(LeaderTold::Now(present))
            }
        }
    }

    /// Whether a process of the directory has locked the name at host scope.
    fn is_wide(&self) -> Result<bool> {
        #[cfg(feature = "process")]
        if let Some(slot) = self.named.entry.slot()
            && slot.is_wide()
        {
            return match self.named.reach.has_leader() {
                true => Ok(true),
                false => Err(self.named.about(Scope::Process)(crate::error::LockError::config(
                    "it is locked at host scope, and this manager has no leaders: give it the same \
                     leaders",
                ))),
            };
        }
        Ok(false)
    }
}

impl NewsFrom {
    /// How long to wait before the next look, if nothing is told.
    fn nap(&mut self) -> Duration {
        match self {
            #[cfg(feature = "process")]
            NewsFrom::Directory(news) => news.nap(),
            _ => UNTOLD_NAP,
        }
    }
}

/// A directory is looked at so often at least.
#[cfg(feature = "process")]
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// Where each change is told: so often it is looked whether the scope in force has grown, or the manager
/// was closed.
const UNTOLD_NAP: Duration = Duration::from_millis(250);

//! What is asked about locks that others hold: is this token's lease good, take that lock away.

#[cfg(feature = "process")]
use crate::process::{Directory, NameStatus, Unbroken};
use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind, Result},
    ground::Reach,
    name::Name,
    scope::Scope,
    time::Time,
    token::Token,
};
#[cfg(any(feature = "host", feature = "testing"))]
use crate::{host::link, proto::wire::LockInfo};

/// One such question.
#[cfg_attr(not(any(feature = "host", feature = "testing")), expect(dead_code))]
pub(crate) struct Question<'a> {
    reach: &'a Reach,
    name: Name,
    token: Token,
    limit: Time,
}

impl<'a> Question<'a> {
    pub(crate) fn new(reach: &'a Reach, name: &str, token: Token) -> Result<Question<'a>> {
        let name = Name::new(name)
            .map_err(|error| LockError::config(error.to_string()).with_source(error))?;
        Ok(Question { reach, name, token, limit: clock::now() + reach.connect_timeout })
    }

    pub(crate) fn check(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let good = link.check(&self.name, self.token, Some(self.limit)).wait()?;
            return self.checked(good);
        }
        Err(self.nobody_checks())
    }

    pub(crate) async fn check_async(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let good = link.check(&self.name, self.token, Some(self.limit)).await?;
            return self.checked(good);
        }
        Err(self.nobody_checks())
    }

    pub(crate) fn break_lock(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let known = link.list(Some(&self.name), Some(self.limit));
            let known = known.map_err(|error| error.with_name(&self.name))?;
            let broken = link.break_lock(&self.name, self.token, Some(self.limit)).wait()?;
            return self.broken(broken, known);
        }
        self.break_here()
    }

    pub(crate) async fn break_lock_async(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let known = link.list_async(&self.name, Some(self.limit)).await;
            let known = known.map_err(|error| error.with_name(&self.name))?;
            let broken = link.break_lock(&self.name, self.token, Some(self.limit)).await?;
            return self.broken(broken, known);
        }
        self.break_here()
    }

    fn nobody_checks(&self) -> LockError {
        let error = LockError::config(
            "tokens are checked by a leader, and this manager has none; keep the highest token \
             that was seen, and refuse a smaller one (tierlock::fence)",
        );
        error.with_name(&self.name)
    }

    /// Without a leader, only a lock of the manager's directory can be broken.
    fn break_here(&self) -> Result<()> {
        #[cfg(feature = "process")]
        if let Some(directory) = self.reach.ground.directory() {
            let known = self.known_here(directory)?;
            if let Some(by) = known.as_ref().and_then(|status| status.widened_by.as_ref()) {
                let error = LockError::config(format!(
                    "it is locked at host scope by {by}, and only its leader can take it away: \
                     give the same leaders"
                ));
                let error = error.with_holder(known.and_then(|status| status.holder));
                return Err(error.with_name(&self.name).with_scope(Scope::Host));
            }
            let broken = directory.break_lock(&self.name, self.token);
            return broken.map_err(|why| self.not_broken_here(why));
        }
        let error = LockError::config(
            "a lock between threads cannot be taken away, and this manager has neither a \
             directory nor a leader",
        );
        Err(error.with_name(&self.name))
    }

    fn refused(&self, scope: Scope, holder: Option<Holder>) -> LockError {
        let token = self.token;
        let text = match &holder {
            Some(Holder { token: Some(held), .. }) if *held != token => {
                format!("token {token} is not its holder's, which is {held}; nothing was broken")
            }
            Some(_) => {
                format!("it was not taken away from the holder of token {token}; try again")
            }
            None => format!("nobody holds it, with token {token} or any other"),
        };
        let error = LockError::new(LockErrorKind::Refused, text);
        error.with_name(&self.name).with_scope(scope).with_holder(holder)
    }
}

#[cfg(feature = "process")]
impl Question<'_> {
    /// What the manager's directory says about the name.
    fn known_here(&self, directory: &Directory) -> Result<Option<NameStatus>> {
        let known = directory.survey()?;
        Ok(known.into_iter().find(|status| status.name == self.name))
    }

    fn not_broken_here(&self, why: Unbroken) -> LockError {
        let holder = match why {
            Unbroken::Failed(error) => return error.with_name(&self.name),
            Unbroken::Free => None,
            Unbroken::HeldBy(holder) => Some(holder),
            Unbroken::NotHere(holder) => {
                let pid = holder.pid.map_or_else(String::new, |pid| format!(" (kill {pid})"));
                let error = LockError::config(format!(
                    "the locks of this directory are files, and a file's lock cannot be taken \
                     from its holder while others sleep behind it; end the holder's \
                     process{pid}, and the next one has it"
                ));
                let error = error.with_holder(Some(holder));
                return error.with_name(&self.name).with_scope(Scope::Process);
            }
        };
        self.refused(Scope::Process, holder)
    }
}

#[cfg(any(feature = "host", feature = "testing"))]
impl Question<'_> {
    fn checked(&self, good: bool) -> Result<()> {
        if good {
            return Ok(());
        }
        let text = format!("the lease of token {} is over, or was never granted", self.token);
        let error = LockError::new(LockErrorKind::Lost, text);
        Err(error.with_name(&self.name).with_scope(Scope::Host))
    }

    /// The leader has taken it away from somebody, or not; `known` is what it knew before.
    fn broken(&self, broken: bool, known: Vec<LockInfo>) -> Result<()> {
        let holder = known.into_iter().next().and_then(|lock| lock.holder).map(link::holder_of);
        if broken {
            self.break_below(holder);
            return Ok(());
        }
        // Perhaps it is one of the directory, or of somebody on the way to the leader.
        #[cfg(feature = "process")]
        if let Some(directory) = self.reach.ground.directory() {
            match directory.break_lock(&self.name, self.token) {
                Ok(()) => return Ok(()),
                Err(Unbroken::Free) => {}
                Err(why) if holder.is_none() => return Err(self.not_broken_here(why)),
                Err(_) => {}
            }
        }
        Err(self.refused(Scope::Host, holder))
    }

    /// Where the one who lost its lease is a process of this manager's directory, it keeps the
    /// others there waiting until it has let go: it loses the name there too.
    fn break_below(&self, loser: Option<Holder>) {
        #[cfg(feature = "process")]
        if let (Some(directory), Some(loser)) = (self.reach.ground.directory(), &loser) {
            let here = self.known_here(directory).ok().flatten().and_then(|known| known.holder);
            let same = here.is_some_and(|here| (here.pid, &here.host) == (loser.pid, &loser.host));
            if same {
                // If it has another token by now, or none, it holds nobody up.
                let _ = directory.break_lock(&self.name, self.token);
            }
        }
        let _ = loser;
    }
}

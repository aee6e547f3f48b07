//! What is asked about locks that others hold: is this token's lease good, take that lock away.

use crate::{
    clock,
    error::{LockError, Result},
    name::Name,
    path::ground::Reach,
    time::Time,
    token::Token,
};
#[cfg(any(feature = "host", feature = "testing"))]
use crate::{
    error::{Holder, LockErrorKind},
    host::client::link,
    proto::wire::LockInfo,
    scope::Scope,
};

/// The name that is asked about, if it is one.
pub(crate) fn checked_name(name: &str) -> Result<Name> {
    Name::new(name).map_err(|error| LockError::config(error.to_string()).with_source(error))
}

/// One such question.
#[cfg_attr(not(any(feature = "host", feature = "testing")), expect(dead_code))]
pub(crate) struct TokenQuestion<'a> {
    reach: &'a Reach,
    name: Name,
    token: Token,
    limit: Time,
}

impl<'a> TokenQuestion<'a> {
    pub(crate) fn new(reach: &'a Reach, name: &str, token: Token) -> Result<TokenQuestion<'a>> {
        let name = checked_name(name)?;
        Ok(TokenQuestion { reach, name, token, limit: clock::now() + reach.connect_timeout })
    }

    pub(crate) fn check(&self) -> Result<()> {
        #[cfg(feature = "service")]
        if let Some(engine) = &self.reach.engine {
            return self.compared(crate::blocking::wait_for(engine.look(Some(&self.name))));
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let good = link.check(&self.name, self.token, Some(self.limit)).wait()?;
            return self.checked(good);
        }
        Err(self.cannot_check())
    }

    pub(crate) async fn check_async(&self) -> Result<()> {
        #[cfg(feature = "service")]
        if let Some(engine) = &self.reach.engine {
            return self.compared(engine.look(Some(&self.name)).await);
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let good = link.check(&self.name, self.token, Some(self.limit)).await?;
            return self.checked(good);
        }
        Err(self.cannot_check())
    }

    pub(crate) fn break_lock(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let known = link.list(Some(&self.name), Some(self.limit));
            let known = known.map_err(|error| error.with_name(&self.name))?;
            let broken = link.break_lock(&self.name, self.token, Some(self.limit)).wait()?;
            return self.broken(broken, known);
        }
        Err(self.not_broken_here())
    }

    pub(crate) async fn break_lock_async(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            let known = link.list_async(&self.name, Some(self.limit)).await;
            let known = known.map_err(|error| error.with_name(&self.name))?;
            let broken = link.break_lock(&self.name, self.token, Some(self.limit)).await?;
            return self.broken(broken, known);
        }
        Err(self.not_broken_here())
    }

    fn cannot_check(&self) -> LockError {
        let error = LockError::config(
            "tokens are checked by a leader, and this manager has none; keep the highest token \
             that was seen, and refuse a smaller one (tierlock::fence)",
        );
        error.with_name(&self.name)
    }

    /// Below host scope nothing is taken from a living process.
    fn not_broken_here(&self) -> LockError {
        #[cfg(feature = "service")]
        if let Some(engine) = &self.reach.engine {
            let (shown, advice) = (engine.shown(), engine.break_advice(&self.name));
            let error = LockError::config(format!(
                "{shown} takes no lock from a living holder for us, and waits for no answer of it; its \
                 own command does: {advice}"
            ));
            return error.with_name(&self.name).with_scope(Scope::Host);
        }
        let error = LockError::config(
            "a lock is taken away from a living holder only at host scope, by its leader, and this \
             manager has none; below that a lock ends with its holder's process: `tierlock break \
             --dir` ends it",
        );
        error.with_name(&self.name)
    }
}

#[cfg(any(feature = "host", feature = "testing"))]
impl TokenQuestion<'_> {
    /// Whether the holder has this token, as a service of another kind knows it.
    #[cfg(feature = "service")]
    fn compared(&self, known: Result<Vec<crate::host::engines::EngineLock>>) -> Result<()> {
        let known = known.map_err(|error| error.with_name(&self.name).with_scope(Scope::Host))?;
        let holders = known.into_iter().filter_map(|lock| lock.holder);
        let mut tokens = holders.filter_map(|holder| holder.token);
        self.checked(tokens.any(|token| token == self.token))
    }

    fn checked(&self, good: bool) -> Result<()> {
        if good {
            return Ok(());
        }
        let text = format!("the lease of token {} is over, or was never granted", self.token);
        let error = LockError::new(LockErrorKind::Lost, text);
        Err(error.with_name(&self.name).with_scope(Scope::Host))
    }

    /// The leader has taken it away from its holder, or not; `known` is what it knew before.
    fn broken(&self, broken: bool, known: Vec<LockInfo>) -> Result<()> {
        if broken {
            return Ok(());
        }
        let holder = known.into_iter().next().and_then(|lock| lock.holder).map(link::holder_of);
        Err(self.refused(holder))
    }

    fn refused(&self, holder: Option<Holder>) -> LockError {
        let token = self.token;
        let text = match &holder {
            Some(Holder { token: Some(held), .. }) if *held != token => {
                format!("token {token} is not its holder's, which is {held}; nothing was broken")
            }
            Some(_) => {
                format!("it was not taken away from the holder of token {token}; try again")
            }
            None => format!("it is not held, with token {token} or any other"),
        };
        let error = LockError::new(LockErrorKind::Refused, text);
        error.with_name(&self.name).with_scope(Scope::Host).with_holder(holder)
    }
}

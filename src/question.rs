//! What is asked about locks that others hold: is this token's lease good, take that lock away.

use crate::{
    clock,
    error::{Holder, LockError, Result},
    ground::Reach,
    name::Name,
    time::Time,
    token::Token,
};
#[cfg(any(feature = "host", feature = "testing"))]
use crate::{error::LockErrorKind, host::link, proto::wire::LockInfo, scope::Scope};

/// One such question. Without a leader there is nobody to answer it.
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
            if link.break_lock(&self.name, self.token, Some(self.limit)).wait()? {
                return Ok(());
            }
            return Err(self.not_broken(link.list(Some(&self.name), Some(self.limit))));
        }
        Err(self.cannot_be_broken())
    }

    pub(crate) async fn break_lock_async(&self) -> Result<()> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some(link) = &self.reach.link {
            if link.break_lock(&self.name, self.token, Some(self.limit)).await? {
                return Ok(());
            }
            return Err(self.not_broken(link.list_async(&self.name, Some(self.limit)).await));
        }
        Err(self.cannot_be_broken())
    }

    fn nobody_checks(&self) -> LockError {
        let error = LockError::config(
            "tokens are checked by a leader, and this manager has none; keep the highest token              that was seen, and refuse a smaller one (tierlock::fence)",
        );
        error.with_name(&self.name)
    }

    /// A lock of a directory, or none.
    fn cannot_be_broken(&self) -> LockError {
        let error = LockError::config(
            "only a host-scope lock can be taken away, and this manager has no leader; one of              process scope ends with its holder's process: end that",
        );
        error.with_name(&self.name).with_holder(self.holder_here())
    }

    /// Who holds it in the manager's directory.
    fn holder_here(&self) -> Option<Holder> {
        #[cfg(feature = "process")]
        return self.reach.ground.directory().and_then(|directory| {
            let known = directory.survey().ok()?;
            known.into_iter().find(|status| status.name == self.name)?.holder
        });
        #[cfg(not(feature = "process"))]
        {
            let _ = self.reach;
            None
        }
    }
}

#[cfg(any(feature = "host", feature = "testing"))]
impl Question<'_> {
    fn checked(&self, good: bool) -> Result<()> {
        if good {
            return Ok(());
        }
        let text = format!("the lease of token {} is over, or was never granted", self.token);
        Err(self.at_host_scope(LockError::new(LockErrorKind::Lost, text)))
    }

    /// The leader has not taken it away from anybody: why, as far as it can be found out.
    fn not_broken(&self, listed: Result<Vec<LockInfo>>) -> LockError {
        let token = self.token;
        let found = match listed {
            Ok(found) => found.into_iter().next(),
            Err(error) => return error.with_name(&self.name),
        };
        let holder = found.and_then(|lock| lock.holder).map(link::holder_of);
        let text = match (&holder, self.holder_here()) {
            (Some(Holder { token: Some(held), .. }), _) if *held == token => {
                format!(
                    "the leader did not take it away from the holder of token {token}; try again"
                )
            }
            (Some(Holder { token: Some(held), .. }), _) => {
                format!("token {token} is not its holder's, which is {held}; nothing was broken")
            }
            (_, Some(here)) => return self.cannot_be_broken().with_holder(Some(here)),
            (_, None) => format!("nobody holds it, with token {token} or any other"),
        };
        let error = LockError::new(LockErrorKind::Refused, text);
        self.at_host_scope(error.with_holder(holder))
    }

    fn at_host_scope(&self, error: LockError) -> LockError {
        error.with_name(&self.name).with_scope(Scope::Host)
    }
}

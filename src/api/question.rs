//! What is asked about locks that others hold: is this token's lease good, take that lock away.

use std::sync::Arc;

use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind, Result},
    host::questions::{LockQuestions, ServedLock},
    name::Name,
    path::ground::Reach,
    scope::Scope,
    time::Time,
    token::Token,
};

/// The name that is asked about, if it is one.
pub(crate) fn checked_name(name: &str) -> Result<Name> {
    Name::new(name).map_err(|error| LockError::config(error.to_string()).with_source(error))
}

/// One such question.
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
        let questions = self.questions().ok_or_else(|| self.cannot_check())?;
        self.checked(questions.is_good(&self.name, self.token, self.limit).wait()?)
    }

    pub(crate) async fn check_async(&self) -> Result<()> {
        let questions = self.questions().ok_or_else(|| self.cannot_check())?;
        self.checked(questions.is_good(&self.name, self.token, self.limit).await?)
    }

    pub(crate) fn break_lock(&self) -> Result<()> {
        let questions = self.questions_that_break()?;
        let known = questions.clone().list(Some(&self.name), self.limit).wait();
        let known = known.map_err(|error| error.with_name(&self.name))?;
        let is_broken = questions.take_away(&self.name, self.token, self.limit).wait()?;
        self.broken(is_broken, known)
    }

    pub(crate) async fn break_lock_async(&self) -> Result<()> {
        let questions = self.questions_that_break()?;
        let known = questions.clone().list(Some(&self.name), self.limit).await;
        let known = known.map_err(|error| error.with_name(&self.name))?;
        let is_broken = questions.take_away(&self.name, self.token, self.limit).await?;
        self.broken(is_broken, known)
    }

    fn questions(&self) -> Option<Arc<dyn LockQuestions>> {
        self.reach.questions.clone()
    }

    /// Below host scope nothing is taken from a living process.
    fn questions_that_break(&self) -> Result<Arc<dyn LockQuestions>> {
        let Some(questions) = self.questions() else {
            let error = LockError::config(
                "a lock is taken away from a living holder only at host scope, by its leader, and \
                 this manager has none; below that a lock ends with its holder's process: \
                 `tierlock break --dir` ends it",
            );
            return Err(error.with_name(&self.name));
        };
        match questions.why_unbroken(&self.name) {
            Some(error) => Err(error.with_name(&self.name).with_scope(Scope::Host)),
            None => Ok(questions),
        }
    }

    fn cannot_check(&self) -> LockError {
        let error = LockError::config(
            "tokens are checked by a leader, and this manager has none; keep the highest token \
             that was seen, and refuse a smaller one (tierlock::fence)",
        );
        error.with_name(&self.name)
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
    fn broken(&self, is_broken: bool, known: Vec<ServedLock>) -> Result<()> {
        if is_broken {
            return Ok(());
        }
        Err(self.refused(known.into_iter().next().and_then(ServedLock::first_holder)))
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

//! Several locks at once: in the order of their names, all or none.
//!
//! Two callers that each held one of two names and waited for the other would wait for ever. So each
//! waits for a name only while it holds none behind it, in the order of the names. First it tries for
//! all that are left, and asks a service for them at once, each request after the one before it; what
//! is granted behind one that was not goes back. Then it waits for that one, and tries for the rest.

use std::{future::poll_fn, task::Poll};

use crate::{
    error::{LockError, LockErrorKind, Result},
    time::Time,
};

use super::{
    Core, LockMode, Patience,
    climb::{AheadClimb, Climb},
    right::Held,
};

/// One of several locks, and how it is wanted.
#[derive(Clone, Copy)]
pub(crate) struct WantedPart<'a> {
    pub(crate) core: &'a Core,
    pub(crate) mode: LockMode,
}

/// Takes all of them, which stand in the order of their names. Those that it has stay with the calling thread,
/// as single ones do: also while it waits for the next.
pub(crate) fn lock_all(parts: &[WantedPart<'_>], patience: Patience) -> Result<Vec<Held>> {
    let mut won = WonParts::of(parts);
    loop {
        let before = won.held.len();
        for part in won.ask_for_rest(patience, false)? {
            let tried = part.run();
            if let (Ok(held), Some(missing)) = (&tried, won.missing()) {
                missing.stays_here(held);
            }
            if !won.add(tried)? {
                break;
            }
        }
        let Some(missing) = won.missing() else { return Ok(won.take()) };
        if patience == Patience::No {
            won.check_progress(before)?;
            continue;
        }
        let held = missing.core.enter(missing.mode, patience);
        won.held.push(held.map_err(|error| missing.about(error))?);
    }
}

/// The same, blocking no thread.
pub(crate) async fn lock_all_async(
    parts: &[WantedPart<'_>],
    patience: Patience,
) -> Result<Vec<Held>> {
    let mut won = WonParts::of(parts);
    loop {
        let before = won.held.len();
        let mut asked = won.ask_for_rest(patience, true)?;
        poll_fn(|cx| {
            let are_answered = asked.iter_mut().map(|part| match &mut part.ahead {
                Some(AheadClimb::Asked(climb)) => climb.is_answered(cx),
                _ => true,
            });
            // All are polled, also behind one that waits.
            match are_answered.fold(true, |all, is_answered| all & is_answered) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        for part in asked {
            if !won.add(part.finish().await)? {
                break;
            }
        }
        let Some(missing) = won.missing() else { return Ok(won.take()) };
        if patience == Patience::No {
            won.check_progress(before)?;
            continue;
        }
        let held = missing.core.enter_async(missing.mode, patience).await;
        won.held.push(held.map_err(|error| missing.about(error))?);
    }
}

impl WantedPart<'_> {
    fn stays_here(self, held: &Held) {
        if let (Core::Named(named), LockMode::Exclusive) = (self.core, self.mode) {
            named.stays_here(held.token);
        }
    }

    fn about(self, error: LockError) -> LockError {
        match self.core {
            Core::Named(named) => error.with_name(named.name()),
            Core::Plain(_) => error,
        }
    }
}

/// Those that were won, the first ones. Dropped, it gives them back unused.
struct WonParts<'a> {
    parts: &'a [WantedPart<'a>],
    held: Vec<Held>,
    /// What the first that is missing was refused with, when it was tried last.
    refused: Option<LockError>,
}

impl<'a> WonParts<'a> {
    fn of(parts: &'a [WantedPart<'a>]) -> WonParts<'a> {
        WonParts { parts, held: Vec::with_capacity(parts.len()), refused: None }
    }

    /// Asks for all that are left, each only if those before it are had.
    fn ask_for_rest(&mut self, patience: Patience, is_task: bool) -> Result<Vec<AheadPart<'a>>> {
        let until = match patience {
            Patience::Until(until) => Some(until),
            Patience::No | Patience::Forever => None,
        };
        let (mut asked, mut after) = (Vec::new(), None);
        let parts = self.parts;
        for part in &parts[self.held.len()..] {
            let ahead = match part.ask(after, until, is_task) {
                Ok(ahead) => ahead,
                // One that waits finds out by its own question whether the service answers.
                Err(error)
                    if is_taken(&error) || error.is_unreachable() && patience != Patience::No =>
                {
                    self.refused = Some(error);
                    break;
                }
                Err(error) => return Err(part.about(error)),
            };
            let is_last = match &ahead {
                AheadClimb::Arrived(_) => false,
                AheadClimb::Asked(climb) => {
                    after = climb.number();
                    after.is_none()
                }
            };
            asked.push(AheadPart { part: *part, ahead: Some(ahead) });
            if is_last {
                break;
            }
        }
        Ok(asked)
    }

    /// The next of them, if it was had; whether it was.
    fn add(&mut self, tried: Result<Held>) -> Result<bool> {
        match tried {
            Ok(held) => self.held.push(held),
            Err(error) if is_taken(&error) => {
                self.refused = Some(error);
                return Ok(false);
            }
            Err(error) => return Err(self.parts[self.held.len()].about(error)),
        }
        Ok(true)
    }

    /// The first that is not had yet.
    fn missing(&self) -> Option<WantedPart<'a>> {
        self.parts.get(self.held.len()).copied()
    }

    /// For a try, of which `before` were had: the first of those that it asked for is another's, if it
    /// has no more now. One behind that may have been refused only since that had to wait for the disk
    /// of the leader: it is asked for once more.
    fn check_progress(&mut self, before: usize) -> Result<()> {
        match self.missing() {
            Some(part) if self.held.len() == before => {
                let refused =
                    self.refused.take().filter(|why| why.kind() == LockErrorKind::WouldBlock);
                Err(part.about(refused.unwrap_or(LockError::WOULD_BLOCK)))
            }
            _ => Ok(()),
        }
    }

    fn take(mut self) -> Vec<Held> {
        std::mem::take(&mut self.held)
    }
}

impl Drop for WonParts<'_> {
    fn drop(&mut self) {
        while let Some(mut held) = self.held.pop() {
            self.parts[self.held.len()].core.give_back(&mut held);
        }
    }
}

impl<'a> WantedPart<'a> {
    fn ask(
        &self,
        after: Option<u64>,
        until: Option<Time>,
        is_task: bool,
    ) -> Result<AheadClimb<'a>> {
        match self.core {
            Core::Named(named) => Climb::ahead(named, self.mode, after, until, is_task),
            Core::Plain(_) => unreachable!("those that are locked together have names"),
        }
    }
}

/// One that was asked for. Dropped, it gives back what it is or was to have.
struct AheadPart<'a> {
    part: WantedPart<'a>,
    ahead: Option<AheadClimb<'a>>,
}

impl AheadPart<'_> {
    fn run(mut self) -> Result<Held> {
        match self.ahead.take().expect("it is run once") {
            AheadClimb::Arrived(held) => Ok(held),
            AheadClimb::Asked(climb) => climb.run(),
        }
    }

    async fn finish(mut self) -> Result<Held> {
        match self.ahead.take().expect("it is finished once") {
            AheadClimb::Arrived(held) => Ok(held),
            AheadClimb::Asked(climb) => climb.finish().await,
        }
    }
}

impl Drop for AheadPart<'_> {
    fn drop(&mut self) {
        if let Some(AheadClimb::Arrived(mut held)) = self.ahead.take() {
            self.part.core.give_back(&mut held);
        }
    }
}

/// Whether another holder has it, or stands before it.
fn is_taken(error: &LockError) -> bool {
    match error.kind() {
        LockErrorKind::WouldBlock => true,
        LockErrorKind::TimedOut => !error.is_unanswered(),
        _ => false,
    }
}

//! The spans.

use tracing::{
    Level, Span,
    field::{Empty, display},
    level_filters::LevelFilter,
    span,
};

use crate::{
    error::{Predecessor, Result},
    path::{
        LockMode,
        hold_span::{HoldSpan, guarded},
        named::Named,
        right::Held,
    },
};

/// Whether a subscriber wants them: then nothing goes past them by a fast path.
#[inline]
pub(in crate::path) fn are_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
        && tracing::enabled!(target: "tierlock", Level::DEBUG)
}

pub(in crate::path) struct AcquireSpan(Option<Span>);

impl AcquireSpan {
    pub(in crate::path) fn begin(named: &Named, mode: LockMode) -> AcquireSpan {
        let begin = || {
            let (name, scope) = (named.name().as_str(), display(named.scope()));
            let mode = match mode {
                LockMode::Exclusive => "exclusive",
                LockMode::Upgradable => "upgradable",
                LockMode::Shared => "shared",
                LockMode::Permits(_) => "permits",
            };
            span!(
                target: "tierlock", Level::DEBUG, "acquire",
                name, scope, mode, token = Empty, outcome = Empty,
            )
        };
        AcquireSpan(guarded(begin))
    }

    /// Ends it, and begins that of the hold.
    pub(in crate::path) fn end(mut self, named: &Named, won: Result<Held>) -> Result<Held> {
        let Some(span) = self.0.take() else { return won };
        match won {
            Ok(mut held) => {
                guarded(|| {
                    span.record("token", held.token.get());
                    span.record("outcome", "acquired");
                    drop(span);
                });
                hold(named, &mut held);
                Ok(held)
            }
            Err(error) => {
                guarded(|| {
                    span.record("outcome", display(&error));
                    drop(span);
                });
                Err(error)
            }
        }
    }
}

impl Drop for AcquireSpan {
    /// The future was dropped before its lock came.
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            guarded(|| {
                span.record("outcome", "cancelled");
                drop(span);
            });
        }
    }
}

/// Begins the span of what is held.
pub(in crate::path) fn hold(named: &Named, held: &mut Held) {
    if !are_wanted() {
        return;
    }
    let begin = || {
        let (name, scope) = (named.name().as_str(), display(held.scope()));
        let (token, predecessor) = (held.token.get(), display(held.predecessor()));
        span!(target: "tierlock", Level::DEBUG, "hold", name, scope, token, predecessor)
    };
    held.more_mut().hold = guarded(begin).map(HoldSpan::new);
}

pub(in crate::path) struct ReleaseSpan(Option<Span>);

impl ReleaseSpan {
    /// Of what has a span of its hold.
    pub(in crate::path) fn begin(named: &Named, held: &Held, how: Predecessor) -> ReleaseSpan {
        if held.more().is_none_or(|more| more.hold.is_none()) {
            return ReleaseSpan(None);
        }
        let begin = || {
            let (name, scope) = (named.name().as_str(), display(held.scope()));
            let (token, how) = (held.token.get(), display(how));
            span!(target: "tierlock", Level::DEBUG, "release", name, scope, token, how)
        };
        ReleaseSpan(guarded(begin))
    }

    pub(in crate::path) fn end(self) {
        if let Some(span) = self.0 {
            guarded(|| drop(span));
        }
    }
}

//! The spans.

use tracing::{
    Level,
    field::{Empty, display},
    level_filters::LevelFilter,
    span,
};

use crate::{
    error::{Predecessor, Result},
    path::{LockMode, guarded_span::GuardedSpan, named::Named, right::Held},
};

/// Whether a subscriber wants them: then nothing goes past them by a fast path.
#[inline]
pub(in crate::path) fn are_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
        && tracing::enabled!(target: "tierlock", Level::DEBUG)
}

pub(in crate::path) struct AcquireSpan(Option<GuardedSpan>);

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
        AcquireSpan(GuardedSpan::begin(begin))
    }

    /// Ends it, and begins that of the hold.
    pub(in crate::path) fn end(mut self, named: &Named, won: Result<Held>) -> Result<Held> {
        let Some(span) = self.0.take() else { return won };
        match won {
            Ok(mut held) => {
                span.record(|span| {
                    span.record("token", held.token.get());
                    span.record("outcome", "acquired");
                });
                drop(span);
                hold(named, &mut held);
                Ok(held)
            }
            Err(error) => {
                span.record(|span| {
                    span.record("outcome", display(&error));
                });
                Err(error)
            }
        }
    }
}

impl Drop for AcquireSpan {
    /// The future was dropped before its lock came.
    fn drop(&mut self) {
        if let Some(span) = &self.0 {
            span.record(|span| {
                span.record("outcome", "cancelled");
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
    held.more_mut().hold = GuardedSpan::begin(begin);
}

/// Ends when it is dropped.
pub(in crate::path) struct ReleaseSpan(
    #[expect(dead_code, reason = "its end is what it is for")] Option<GuardedSpan>,
);

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
        ReleaseSpan(GuardedSpan::begin(begin))
    }
}

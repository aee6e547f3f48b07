//! The spans.
//!
//! What runs while no subscriber wants them is compiled into its callers and looks at the level; all else is
//! called.

use std::mem::ManuallyDrop;

use tracing::{
    Level,
    field::{Empty, display},
    level_filters::LevelFilter,
    record_all, span,
};

use crate::{
    error::{Predecessor, Result},
    path::{
        LockMode,
        guarded_span::{GuardedSpan, guarded},
        named::Named,
        right::{Held, More, Won},
    },
    scope::Scope,
    token::Token,
};

/// Whether a subscriber wants them: then nothing goes past them by a fast path.
#[inline]
pub(in crate::path) fn are_wanted() -> bool {
    is_level_wanted() && are_enabled()
}

#[inline]
fn is_level_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

#[cold]
fn are_enabled() -> bool {
    guarded(|| tracing::enabled!(target: "tierlock", Level::DEBUG)).unwrap_or(false)
}

/// Emptied by its end, in its place: what nothing wants is neither moved nor dropped.
pub(in crate::path) struct AcquireSpan(ManuallyDrop<Option<GuardedSpan>>);

impl AcquireSpan {
    #[inline]
    pub(in crate::path) fn begin(named: &Named, mode: LockMode) -> AcquireSpan {
        let span = if is_level_wanted() { begin_acquire(named, mode) } else { None };
        AcquireSpan(ManuallyDrop::new(span))
    }

    /// Ends it, and begins that of the hold.
    #[inline]
    pub(in crate::path) fn end(&mut self, named: &Named, won: &mut Result<Held>) {
        if self.0.is_some() {
            end_acquire(self, named, won);
        }
    }
}

impl Drop for AcquireSpan {
    /// The future was dropped before its lock came.
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            cancel_acquire(self);
        }
    }
}

#[cold]
fn begin_acquire(named: &Named, mode: LockMode) -> Option<GuardedSpan> {
    GuardedSpan::begin(|| {
        let (name, scope) = (named.name().as_str(), display(named.scope()));
        let mode = match mode {
            LockMode::Exclusive => "exclusive",
            LockMode::Upgradable => "upgradable",
            LockMode::Shared => "shared",
            LockMode::Permits(_) => "permits",
        };
        // What is recorded later is looked up by its name: it is found soonest in front.
        span!(
            target: "tierlock", Level::DEBUG, "acquire",
            token = Empty, outcome = Empty, name, scope, mode,
        )
    })
}

#[cold]
fn end_acquire(span: &mut AcquireSpan, named: &Named, won: &mut Result<Held>) {
    let Some(span) = span.0.take() else { return };
    match won {
        Ok(held) => {
            let token = held.token.get();
            span.end(|span| record_all!(span, token = token, outcome = "acquired"));
            begin_hold(named, held);
        }
        Err(error) => span.end(|span| record_all!(span, outcome = display(error))),
    }
}

#[cold]
fn cancel_acquire(span: &mut AcquireSpan) {
    if let Some(span) = span.0.take() {
        span.end(|span| record_all!(span, outcome = "cancelled"));
    }
}

/// Begins the span of what is held.
#[inline]
pub(in crate::path) fn hold(named: &Named, held: &mut Held) {
    if is_level_wanted() {
        begin_hold(named, held);
    }
}

#[cold]
fn begin_hold(named: &Named, held: &mut Held) {
    let span = GuardedSpan::begin(|| {
        let (name, scope) = (named.name().as_str(), display(held.scope()));
        let (token, predecessor) = (held.token.get(), display(held.predecessor()));
        span!(target: "tierlock", Level::DEBUG, "hold", name, scope, token, predecessor)
    });
    if span.is_some() {
        held.more_mut().hold = span;
    }
}

/// Ends when it is dropped.
pub(in crate::path) struct ReleaseSpan(
    #[expect(dead_code, reason = "its end is what it is for")] Option<GuardedSpan>,
);

impl ReleaseSpan {
    /// Of what has a span of its hold.
    #[inline]
    pub(in crate::path) fn begin(named: &Named, held: &Held, how: Predecessor) -> ReleaseSpan {
        let told = held.more().filter(|more| more.hold.is_some());
        ReleaseSpan(told.and_then(|_| begin_release(named, held.scope(), held.token, how)))
    }
}

#[cold]
fn begin_release(
    named: &Named,
    scope: Scope,
    token: Token,
    how: Predecessor,
) -> Option<GuardedSpan> {
    GuardedSpan::begin(|| {
        let (name, scope) = (named.name().as_str(), display(scope));
        let (token, how) = (token.get(), display(how));
        span!(target: "tierlock", Level::DEBUG, "release", name, scope, token, how)
    })
}

/// The span of a hold that is released quietly.
pub(crate) struct HoldSpan(Box<More>);

impl Held {
    /// Of what is quiet: all that it has besides what it has won.
    #[inline]
    pub(crate) fn take_hold_span(&mut self) -> Option<HoldSpan> {
        self.take_more().map(HoldSpan)
    }
}

impl Named {
    /// As [`release_quietly`](Self::release_quietly), where a subscriber is told.
    #[cold]
    pub(crate) fn release_told(&self, won: Won, HoldSpan(hold): HoldSpan, generation: u64) {
        let release = begin_release(self, won.scope(), won.token, Predecessor::Clean);
        self.release_quietly(won, generation);
        drop((hold, release));
    }
}

impl More {
    /// Whether a subscriber is told of it, and there is nothing else.
    #[cold]
    pub(in crate::path) fn is_only_told(&self) -> bool {
        let More { watch, alarm, since, leased, hold } = self;
        let has_terms = watch.is_some() || alarm.is_some() || since.is_some();
        hold.is_some() && !has_terms && leased.is_none()
    }
}

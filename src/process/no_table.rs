//! In place of the table engine, where it is not: it needs Linux's futexes, and numbers that are
//! 64 bits wide and in the order of x86. With `--cfg tierlock_no_table` it is nowhere, so that this
//! is looked at on Linux too.

use std::{convert::Infallible, sync::Arc, time::Duration};

use crate::{
    error::{Holder, LockError, Predecessor},
    mode::{Room, Share, Usage},
    name::Name,
    time::Time,
    token::Token,
};

#[cfg(any(feature = "cli", test))]
use super::dir::report::DirectoryReport;
use super::{DirectoryKey, Drain, NameStatus, Options, SlotWish, Taken, dir::home::Home};

pub(super) const IS_HERE: bool = false;
pub(super) const FORMAT: &str = "tierlock table 3";

#[cfg(all(feature = "cli", target_os = "linux"))]
pub(super) fn holding(home: &Home, _: &Name) -> Result<super::ending::HolderState, LockError> {
    Err(home.about(LockError::config("the table engine needs a little-endian 64-bit Linux")))
}

#[cfg(any(feature = "cli", test))]
pub(super) fn examine(home: Home, report: &mut DirectoryReport) {
    let here = "the table engine needs a little-endian 64-bit Linux, which this is not; examine \
                the directory where it is used";
    report.error(&home.about(LockError::config(here)));
}

/// Nothing to measure.
#[cfg(feature = "testing")]
pub mod parts {}

/// There is none.
pub(super) struct TableDirectory(Infallible);

impl TableDirectory {
    pub(super) fn open(home: Home, _: &Options) -> Result<TableDirectory, LockError> {
        Err(home.about(LockError::config(
            "the table engine needs a little-endian 64-bit Linux; use the file-lock engine",
        )))
    }

    pub(super) fn home(&self) -> &Home {
        match self.0 {}
    }

    pub(super) fn key(&self) -> DirectoryKey {
        match self.0 {}
    }

    pub(super) fn slot_for(self: &Arc<Self>, _: &Name, _: Usage) -> Result<TableSlot, LockError> {
        match self.0 {}
    }

    pub(super) fn inspect(&self) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
        match self.0 {}
    }

    pub(super) fn look(&self, _: &Name) -> Result<Option<NameStatus>, LockError> {
        match self.0 {}
    }

    #[cfg(all(feature = "cli", target_os = "linux"))]
    pub(super) fn end_stay(&self, _: &Name, _: Token) -> Result<bool, LockError> {
        match self.0 {}
    }
}

/// There is none.
#[derive(Clone, Copy)]
pub(super) struct FoundSlot<'a>(&'a Infallible);

/// What else may be inside where a quiet word was won.
#[allow(dead_code, reason = "there is no word")]
pub(crate) enum WordWon {
    Alone,
    Beside,
}

/// A way that leads nowhere.
pub(super) struct PlaceShortcut;

impl PlaceShortcut {
    pub(super) const fn new() -> PlaceShortcut {
        PlaceShortcut
    }

    pub(super) fn here(&self) -> Option<FoundSlot<'_>> {
        None
    }

    pub(super) fn lead_to(&self, slot: &TableSlot, _: u64) {
        match slot.0 {}
    }
}

impl FoundSlot<'_> {
    pub(super) fn take_word(self) -> Option<WordWon> {
        match *self.0 {}
    }

    pub(super) fn is_alone(self) -> bool {
        match *self.0 {}
    }

    pub(super) fn count(self) -> Option<Token> {
        match *self.0 {}
    }

    pub(super) fn leave_uncounted(self) {
        match *self.0 {}
    }

    pub(super) fn is(self, _: FoundSlot<'_>) -> bool {
        match *self.0 {}
    }

    pub(super) fn fork_generation(self) -> u64 {
        match *self.0 {}
    }

    pub(super) fn take(self) -> Option<Token> {
        match *self.0 {}
    }

    pub(super) fn release(self, _: Token) {
        match *self.0 {}
    }

    pub(super) fn read(self, _: bool) -> Option<(Token, Predecessor)> {
        match *self.0 {}
    }

    pub(super) fn unread(self) {
        match *self.0 {}
    }
}

/// There is nothing to wait for.
#[derive(Default)]
pub(super) struct TableDrainer;

impl TableDrainer {
    pub(super) fn looks_again(&mut self, _: bool) {}
}

/// There is none.
pub(super) struct TableSlot(Infallible);

impl TableSlot {
    pub(super) fn try_take(&self, _: Token) -> Result<Option<Taken>, LockError> {
        match self.0 {}
    }

    pub(super) fn take_unless(
        &self,
        _: Token,
        _: Time,
        _: &dyn Fn() -> bool,
        _: SlotWish,
    ) -> Result<Taken, LockError> {
        match self.0 {}
    }

    pub(super) async fn take_async(
        &self,
        _: Token,
        _: Time,
        _: SlotWish,
    ) -> Result<Taken, LockError> {
        match self.0 {}
    }

    pub(super) fn prepare_to_read(&self) -> Result<(), LockError> {
        match self.0 {}
    }

    pub(super) fn read_under_the_word(&self, _: &Taken, _: bool) -> Result<Token, LockError> {
        match self.0 {}
    }

    pub(super) fn share_beside(&self) -> Result<(), LockError> {
        match self.0 {}
    }

    pub(super) fn unshare(&self, _: Share) {
        match self.0 {}
    }

    pub(super) fn count_permits(&self, _: u32) -> Result<Token, LockError> {
        match self.0 {}
    }

    pub(super) fn permits_taken(&self) -> Result<u32, LockError> {
        match self.0 {}
    }

    pub(super) fn may_be_waited_for(&self, _: bool) -> bool {
        match self.0 {}
    }

    pub(super) fn is_draining(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn is_counted(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn set_readable(&self, _: Option<Predecessor>) -> Result<(), LockError> {
        match self.0 {}
    }

    pub(super) fn look_up(&self) {
        match self.0 {}
    }

    pub(super) fn read_beside(&self) -> Result<Option<(Token, Predecessor)>, LockError> {
        match self.0 {}
    }

    pub(super) fn may_read_beside(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn drain(&self, _: &mut TableDrainer, _: Room, _: bool) -> Result<Drain, LockError> {
        match self.0 {}
    }

    pub(super) fn sleep_on_bell(
        &self,
        _: &mut TableDrainer,
        _: u32,
        _: Duration,
    ) -> Result<(), LockError> {
        match self.0 {}
    }

    pub(super) fn await_bell(&self, _: u32) -> Option<std::future::Ready<()>> {
        match self.0 {}
    }

    pub(super) fn is_held_here(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn sharer(&self) -> Option<Holder> {
        match self.0 {}
    }

    pub(super) fn sharer_elsewhere(&self) -> Option<Holder> {
        match self.0 {}
    }

    pub(super) fn waiters_before_own(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn found(&self, _: u64) -> Option<FoundSlot<'_>> {
        match self.0 {}
    }

    pub(super) fn may_block(&self, _: Option<Token>) -> bool {
        match self.0 {}
    }

    pub(super) fn raise_token(&self, _: Token) {
        match self.0 {}
    }

    pub(super) fn widen(&self, _: &str) -> Result<(), LockError> {
        match self.0 {}
    }

    pub(super) fn keep_until(&self, _: Option<Time>) {
        match self.0 {}
    }

    pub(super) fn last_token(&self) -> Token {
        match self.0 {}
    }

    pub(super) fn release_token(&self, _: Token, _: Predecessor) {
        match self.0 {}
    }

    pub(super) fn release(&self, _: Predecessor) {
        match self.0 {}
    }

    pub(super) fn is_wide(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        match self.0 {}
    }

    #[cfg(any(feature = "cli", test))]
    pub(super) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        match self.0 {}
    }

    #[cfg(feature = "cli")]
    pub(super) fn proof_of_sharing(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        match self.0 {}
    }
}

//! The pages of a list, joined.

use super::QueryAnswer;
use crate::{name::Name, proto::wire::LockInfo};

/// The pages of a list, joined.
pub(super) struct Listing<'a> {
    pub(super) only: Option<&'a Name>,
    pub(super) found: Vec<LockInfo>,
    pub(super) next: NextPage,
}

/// The page of a list that is to be asked for next.
#[derive(Default)]
pub(super) enum NextPage {
    /// There is none.
    #[default]
    None,
    /// The one that begins behind this name, or the first.
    Behind(Option<Name>),
}

impl<'a> Listing<'a> {
    pub(super) fn new(only: Option<&'a Name>) -> Listing<'a> {
        Listing { only, found: Vec::new(), next: NextPage::Behind(only.and_then(shortly_before)) }
    }

    pub(super) fn next(&mut self) -> NextPage {
        std::mem::take(&mut self.next)
    }

    pub(super) fn add(&mut self, answer: QueryAnswer) {
        let QueryAnswer::Listed { locks, more } = answer else {
            unreachable!("a list was asked for")
        };
        let last = locks.last().map(|lock| lock.name.clone());
        let passed = self.only.is_some_and(|only| last.as_ref().is_some_and(|last| last >= only));
        if more && !passed && last.is_some() {
            self.next = NextPage::Behind(last);
        }
        let wanted = |lock: &LockInfo| self.only.is_none_or(|only| lock.name == *only);
        self.found.extend(locks.into_iter().filter(wanted));
    }
}

/// A name before this one with little in between, to start a list at.
fn shortly_before(name: &Name) -> Option<Name> {
    let mut text = name.as_str().to_owned();
    text.pop();
    Name::new(&text).ok()
}

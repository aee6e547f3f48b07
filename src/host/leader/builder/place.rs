//! Where a leader's journal is: how it is opened at a start.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{LeaderBuilder, missing};
use crate::{
    error::LockError,
    host::{
        journal::{
            EnteredDirectory, ExclusiveJournal, GroupAddresses, GroupJournal, GroupNews,
            GroupOpening, Journal, JournalOpening, OpenedStore, StoreOpening, open_store,
        },
        leader::LeaderShared,
        net::{address::ListenAddress, own_id::OwnId, tls::Secret},
    },
    proto::{group::MemberName, journal::ReignJournal},
    token::Token,
};

impl LeaderBuilder {
    /// The group that keeps the journal, if one does, and which of its members this is.
    pub(super) fn member_of(
        &self,
        listen: &ListenAddress,
    ) -> Result<Option<(GroupAddresses, MemberName)>, LockError> {
        let Some(members) = &self.group else {
            return match self.member {
                None => Ok(None),
                Some(_) => Err(LockError::config(
                    "a member is one of a group: say which by --group (group)",
                )),
            };
        };
        let addresses: GroupAddresses = members.parse()?;
        let own = addresses.own(self.member.as_deref(), listen)?;
        if self.state_dir.is_none() {
            return Err(LockError::config(
                "a member of a group needs a state directory, for its part of the journal",
            ));
        }
        Ok(Some((addresses, own)))
    }

    /// Where the journal is, before it is opened, and what names this leader's own keys.
    pub(super) fn take_place(
        &mut self,
        lasts: Duration,
    ) -> Result<(JournalPlace, OwnId), LockError> {
        match (self.state_dir.take(), self.journal.take()) {
            (Some(directory), None) => {
                let opening = JournalOpening {
                    init: self.init,
                    epoch_above: self.epoch_above,
                    moves_to: None,
                    is_member: self.group.is_some(),
                    accepted_file_systems: mem::take(&mut self.accepted_file_systems),
                };
                let entered = Journal::enter(&directory, opening)?;
                let own = OwnId::of(&directory)?;
                Ok((JournalPlace::Directory(directory, entered), own))
            }
            (None, Some(url)) => {
                let opening = StoreOpening {
                    init: self.init,
                    epoch_above: self.epoch_above,
                    lasts,
                    patience: STORE_PATIENCE,
                };
                Ok((JournalPlace::Store(url, opening), OwnId::random()))
            }
            (None, None) => Err(missing("a state directory or a journal")),
            (Some(_), Some(_)) => Err(LockError::config(
                "a leader has a state directory or a journal elsewhere, not both",
            )),
        }
    }
}

/// How long a store may take at a leader's start.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Where a leader's journal is, before it is opened.
pub(super) enum JournalPlace {
    Directory(PathBuf, EnteredDirectory),
    Store(String, StoreOpening),
}

impl JournalPlace {
    /// The journal, and what an operator should know of it.
    pub(super) fn open(
        self,
        epoch_above: Option<u32>,
    ) -> Result<(Arc<dyn ReignJournal>, Vec<String>), LockError> {
        match self {
            JournalPlace::Directory(directory, entered) => {
                let (journal, recovered) = entered.open()?;
                if recovered.epoch.max(epoch_above.unwrap_or(0)) >= Token::MAX_EPOCH {
                    return Err(epochs_used_up(&directory));
                }
                Ok((Arc::new(ExclusiveJournal::new(journal, recovered)), Vec::new()))
            }
            JournalPlace::Store(url, opening) => {
                let OpenedStore { journal, warnings } = open_store(&url, &opening)?;
                Ok((journal, warnings))
            }
        }
    }
}

/// Begins to keep the group's journal as its member, and tells the operator what comes of that.
pub(super) fn start_member(
    entered: EnteredDirectory,
    addresses: GroupAddresses,
    own: MemberName,
    secret: Secret,
    lasts: Duration,
    shared: Arc<LeaderShared>,
) -> Result<Arc<GroupJournal>, LockError> {
    let tell = move |news| match news {
        GroupNews::Note(text) => shared.note(text, None),
        GroupNews::Alarm(text) => shared.sound(text),
        GroupNews::StepsAside => shared.step_aside(),
        GroupNews::ReignChanged => shared.look_at_journal(),
    };
    let opening = GroupOpening { addresses, own, secret, lasts, tell: Arc::new(tell) };
    Ok(Arc::new(GroupJournal::start(entered, opening)?))
}

fn epochs_used_up(state_dir: &Path) -> LockError {
    LockError::config(format!(
        "the epochs of the state directory {} are used up ({} was the last), so no token is left \
         that exceeds those it gave. What is left to do: stop all its clients; have every resource \
         that keeps a highest token forget it; start a leader with --init on a new state directory, \
         then the clients",
        state_dir.display(),
        Token::MAX_EPOCH
    ))
}

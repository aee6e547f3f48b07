//! What a leader must not forget, and where it is kept: its cluster, its epoch, the reigns before it,
//! the sessions it has to wait for after a restart, the leases it took away, the names that `at_least`
//! keeps taken. What a journal is says `proto::journal`; here are the journals.
//!
//! | file | owns |
//! |---|---|
//! | `file` | the file in a state directory |
//! | `exclusive` | that file as the journal of one leader at a time |
//! | `group` | three or five leaders that keep it themselves, each on a disk of its own |
//! | `etcd` `postgres` | stores that a site runs already, as the journal of leaders that follow each other |
//! | `moving` | moves one from any of these to another |
//! | `examining` | what an operator may want to know of one in a store |
//! | `entries` | what a batch of records comes to in those |
//! | `ways` | connections to them, and how long an answer may take |

#[cfg(any(feature = "etcd", feature = "postgres"))]
mod entries;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(all(feature = "cli", any(feature = "etcd", feature = "postgres")))]
mod examining;
mod exclusive;
mod file;
mod group;
#[cfg(any(feature = "etcd", feature = "postgres"))]
mod moving;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "etcd", feature = "postgres"))]
mod ways;

use std::{net::IpAddr, sync::Arc, time::Duration};

#[cfg(all(feature = "cli", any(feature = "etcd", feature = "postgres")))]
pub(crate) use self::{examining::examine_journal, moving::move_journal};
pub(super) use self::{
    exclusive::ExclusiveJournal,
    file::{EnteredDirectory, Journal, JournalOpening},
    group::{GroupAddresses, GroupJournal, GroupNews, GroupOpening, MemberDoor},
};
use super::service_url::{ServiceKind, ServiceUrl};
#[cfg(any(feature = "etcd", feature = "postgres"))]
use crate::proto::journal::JournalTrouble;
use crate::{
    error::{LockError, Result},
    proto::journal::ReignJournal,
};

/// Of a session that lives long and loses many leases only the last ones are kept: a reclaim needs
/// those that were not answered for yet.
const REVOKED_PER_SESSION_MAX: usize = 1024;

/// How a store's entries are written.
#[cfg(any(feature = "etcd", feature = "postgres"))]
const STORE_FORMAT: u32 = 1;

/// How many records go in one transaction: each comes to two of the 128 operations at most that
/// etcd allows in one.
#[cfg(any(feature = "etcd", feature = "postgres"))]
const BATCH_MAX: usize = 60;

/// How often a reign renews itself at a store within the time that it lasts: a store that is away for most of
/// that time ends none.
#[cfg(any(feature = "etcd", feature = "postgres"))]
const RENEWALS: u32 = 6;

/// How a journal in a store is to be opened.
#[cfg_attr(
    not(any(feature = "etcd", feature = "postgres")),
    expect(dead_code, reason = "a build without stores refuses each by its URL")
)]
pub(super) struct StoreOpening {
    /// It is to be made, and must not be there.
    pub(super) init: bool,
    /// The epoch that its clients have seen, for a journal that is lost or restored.
    pub(super) epoch_above: Option<u32>,
    /// For how long a reign in it is believed without a renewal: L.
    pub(super) lasts: Duration,
    /// How long the store may take at the start.
    pub(super) patience: Duration,
}

/// A journal in a store that a site runs already.
pub(super) struct OpenedStore {
    pub(super) journal: Arc<dyn ReignJournal>,
    /// What an operator should know of it.
    pub(super) warnings: Vec<String>,
}

/// Opens, or makes, the journal in a store.
///
/// # Errors
///
/// `Config` for a URL that names none, a store that loses what it has confirmed, and a journal that is
/// not there, or is there though it is to be made; `Unreachable`; `Refused` for a login.
#[cfg_attr(
    not(any(feature = "etcd", feature = "postgres")),
    allow(unused_variables, reason = "a build without stores refuses each by its URL")
)]
pub(super) fn open_store(url: &str, opening: &StoreOpening) -> Result<OpenedStore> {
    let url = trusted_url(url)?;
    match url.kind {
        #[cfg(feature = "etcd")]
        ServiceKind::Etcd => {
            let journal = etcd::EtcdJournal::new(url, opening.lasts)?;
            journal.open(opening)?;
            Ok(OpenedStore { journal: Arc::new(journal), warnings: Vec::new() })
        }
        #[cfg(feature = "postgres")]
        ServiceKind::Postgres => {
            let journal = postgres::PostgresJournal::new(url, opening.lasts)?;
            let warnings = journal.open(opening)?;
            Ok(OpenedStore { journal: Arc::new(journal), warnings })
        }
        #[allow(unreachable_patterns, reason = "with both features")]
        ServiceKind::Etcd | ServiceKind::Postgres => Err(lacks_feature(&url)),
        _ => Err(is_no_journal(&url)),
    }
}

/// The way to a journal in a store that is to be moved, and what it is called.
#[cfg(any(feature = "etcd", feature = "postgres"))]
fn reach_store(url: &str) -> Result<(Box<dyn moving::MovableStore>, String)> {
    let url = trusted_url(url)?;
    match url.kind {
        #[cfg(feature = "etcd")]
        ServiceKind::Etcd => {
            let journal = etcd::EtcdJournal::new(url, MOVING_TAKES)?;
            let shown = journal.shown();
            Ok((Box::new(journal), shown))
        }
        #[cfg(feature = "postgres")]
        ServiceKind::Postgres => {
            let journal = postgres::PostgresJournal::new(url, MOVING_TAKES)?;
            let shown = journal.shown();
            Ok((Box::new(journal), shown))
        }
        #[allow(unreachable_patterns, reason = "with both features")]
        ServiceKind::Etcd | ServiceKind::Postgres => Err(lacks_feature(&url)),
        _ => Err(is_no_journal(&url)),
    }
}

/// How long a store may take for a part of a move, twice.
#[cfg(any(feature = "etcd", feature = "postgres"))]
const MOVING_TAKES: Duration = Duration::from_secs(20);

/// The URL of a journal, if no forged answer can come from there.
fn trusted_url(url: &str) -> Result<ServiceUrl> {
    let mut url = ServiceUrl::parse(url)?;
    let is_plaintext_wanted = url.take_switch("plaintext")?;
    let is_safe = url.is_secured()? || url.addresses.iter().all(|address| is_loopback(address));
    if !is_plaintext_wanted && !is_safe {
        return Err(url.refuse(
            "what a journal answers is the proof of a reign, and an answer that is forged on the way \
             gives one lock two holders: reach it by TLS (etcds://…, postgres://…?sslmode=verify-full), \
             or say ?plaintext=1 where nothing else is on that network",
        ));
    }
    Ok(url)
}

fn lacks_feature(url: &ServiceUrl) -> LockError {
    let (feature, _) = url.kind.feature();
    url.refuse(format_args!("this build of tierlock lacks the feature `{feature}`"))
}

fn is_no_journal(url: &ServiceUrl) -> LockError {
    url.refuse("a journal is a state directory, etcd://… or postgres://…")
}

fn is_loopback(address: &str) -> bool {
    let host = match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
        _ => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(any(feature = "etcd", feature = "postgres"))]
fn moved_to(place: &str) -> JournalTrouble {
    JournalTrouble::Failed(format!("it was moved to {place}: start its leaders there"))
}

#[cfg(any(feature = "etcd", feature = "postgres"))]
fn other_format(format: i64) -> JournalTrouble {
    let text = format!("it has format {format}, and this program knows format {STORE_FORMAT}");
    JournalTrouble::Failed(text)
}

/// A batch that is neither the reign's next nor its last.
#[cfg(any(feature = "etcd", feature = "postgres"))]
fn out_of_turn(number: u64) -> JournalTrouble {
    JournalTrouble::Unknown(format!("batch {number} is out of turn"))
}

#[cfg(test)]
mod tests;

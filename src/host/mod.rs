//! Host tier: the seam through which leases come, in every build, and drivers around `proto`. They
//! move bytes and read clocks and decide nothing about locks.

#[cfg(all(feature = "host", feature = "cli"))]
pub(crate) mod asking;
#[cfg(any(feature = "host", feature = "testing"))]
pub(crate) mod client;
#[cfg(feature = "host")]
mod durable;
#[cfg(feature = "service")]
pub(crate) mod engines;
#[cfg(feature = "host")]
mod exit;
#[cfg(feature = "host")]
mod journal;
#[cfg(feature = "host")]
mod leader;
#[cfg_attr(feature = "testing", doc(hidden))]
pub mod lease_word;
#[cfg(all(test, any(feature = "host", feature = "testing"), not(tierlock_loom)))]
mod leased;
#[cfg(feature = "testing")]
pub(crate) mod memory;
#[cfg(feature = "host")]
mod net;
#[cfg_attr(not(feature = "host"), path = "no_host.rs")]
pub(crate) mod opening;
pub(crate) mod questions;
pub(crate) mod service;
#[cfg(feature = "host")]
pub(crate) mod service_url;
pub(crate) mod settings;
#[cfg(all(test, feature = "host"))]
mod speed;
#[cfg(all(test, feature = "host"))]
mod tests;
#[cfg(any(feature = "host", feature = "testing"))]
mod untold;

#[cfg(all(test, feature = "tokio"))]
use self::client::LentReader;
#[cfg(all(test, feature = "host"))]
use self::client::connect;
#[cfg(all(feature = "cli", any(feature = "etcd", feature = "postgres")))]
pub(crate) use self::journal::{examine_journal, move_journal};
#[cfg(all(feature = "host", feature = "cli"))]
pub(crate) use self::leader::{
    EventClient, HAS_OWN_JOURNAL, LeaderHealth, LeaderView, LeaderWindow, refusal,
};
#[cfg(all(feature = "host", feature = "cli"))]
pub(crate) use self::net::client_keys::ClientKeys;
#[cfg(all(feature = "host", feature = "cli"))]
pub(crate) use self::net::{address::ListenAddress, secret_file::read_private};
#[cfg(feature = "host")]
pub use self::{
    leader::{Leader, LeaderBuilder, LeaderEvent, LeaderEventKind},
    net::{
        issued::{Credential, CredentialBuilder},
        tls::Secret,
    },
};

/// This process, for as long as it runs. A forked child is another.
#[cfg(feature = "host")]
fn process_mark() -> crate::proto::ProcessMark {
    static DRAWN: std::sync::OnceLock<u128> = std::sync::OnceLock::new();
    let drawn = DRAWN.get_or_init(random);
    crate::proto::ProcessMark(drawn ^ u128::from(std::process::id()))
}

/// This process as its manager shows it to others.
#[cfg(any(feature = "host", feature = "testing"))]
pub(crate) fn identity_of(label: &str) -> crate::proto::wire::Identity {
    let process = crate::identity::this_process();
    crate::proto::wire::Identity::new(label, &process.host, std::process::id(), &process.command)
}

/// What names a session and proves it: not to be guessed.
#[cfg(any(feature = "host", feature = "testing"))]
fn random() -> u128 {
    u128::from_le_bytes(random_bytes().expect("the system gives random bytes"))
}

#[cfg(any(feature = "host", feature = "testing"))]
fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

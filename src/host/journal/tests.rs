use std::time::Duration;

use super::{is_loopback, trusted_url};
use crate::{
    error::LostReason,
    name::Name,
    proto::{LeaseId, Proof, SessionId, bound::Bound, record::Record},
    token::Token,
};

/// A session with this time to live in seconds.
pub(super) fn opened(session: u128, seconds: u64) -> Record {
    Record::SessionOpened {
        session: SessionId(session),
        proof: Proof(session * 7),
        time_to_live: Duration::from_secs(seconds),
        embedded: false,
        bound: Bound::EVERYTHING,
    }
}

/// A lease of it that was taken away.
pub(super) fn revoked(session: u128, count: u64) -> Record {
    Record::LeaseRevoked {
        session: SessionId(session),
        lease: LeaseId { epoch: 1, count },
        name: Name::new("orders/42").unwrap(),
        token: Token::first_of(1),
        why: LostReason::Broken,
    }
}

#[test]
fn only_this_machine_is_loopback() {
    for address in ["127.0.0.1", "127.0.0.1:5432", "localhost:2379", "[::1]:2379", "::1", "[::1]"] {
        assert!(is_loopback(address), "{address}");
    }
    for address in
        ["10.0.0.1", "db", "localhost.example:5432", "[fe80::1]:2379", "127.0.0.1.example"]
    {
        assert!(!is_loopback(address), "{address}");
    }
}

/// An answer that is forged on the way is a proof of reign.
#[test]
fn a_journal_off_this_machine_is_reached_by_tls() {
    for url in [
        "etcd://127.0.0.1,[::1]",
        "postgres://localhost/d",
        "etcds://10.0.0.1",
        "postgres://10.0.0.1/d?sslmode=verify-full",
        "etcd://10.0.0.1?plaintext=1",
    ] {
        assert!(trusted_url(url).is_ok(), "{url}");
    }
    for url in [
        "etcd://10.0.0.1",
        "etcd://127.0.0.1,10.0.0.1",
        "postgres://10.0.0.1/d",
        "postgres://10.0.0.1/d?sslmode=disable",
        "postgres://10.0.0.1/d?sslmode=require",
    ] {
        let error = trusted_url(url).unwrap_err();
        assert_eq!(error.kind(), crate::error::LockErrorKind::Config, "{url}");
    }
    assert!(trusted_url("etcd://10.0.0.1").unwrap_err().to_string().contains("etcds://"));
}

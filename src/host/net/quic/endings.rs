//! Why a connection ended, in words.

use std::net::SocketAddr;

use quinn_proto::{ApplicationClose, ConnectionError, VarInt};
use rustls::AlertDescription;

use super::CloseCode;
use crate::{
    host::net::{acceptance::Unaccepted, tls::Dialect},
    proto::client::Ended,
};

/// An end in words, and whether trying again may help.
///
/// What comes before the handshake's keys are agreed on can be forged by any host on the path: a
/// Version Negotiation, a close. It ends an attempt, which is made again, and is never believed to
/// be the leader's last word. That a peer has another secret the handshake itself proves, or
/// the leader says it under the handshake's keys.
pub(super) fn why(reason: &ConnectionError, remote: SocketAddr, is_handshaking: bool) -> Ended {
    const CONNECTION_REFUSED: u64 = 0x2;
    if let Some(alert) = HandshakeAlert::of(reason) {
        let is_forgeable = is_handshaking && !alert.is_own;
        return match alert.in_words(remote) {
            Ended::Refused(text) if is_forgeable => Ended::Disconnected(text),
            ended => ended,
        };
    }
    match reason {
        ConnectionError::VersionMismatch => Ended::Disconnected(no_leader(remote)),
        ConnectionError::ConnectionClosed(close)
            if u64::from(close.error_code) == CONNECTION_REFUSED =>
        {
            Ended::Disconnected(format!(
                "the leader at {remote} has no room for another connection from this address; close \
                 managers that are not needed, or start it with a larger --sessions-max"
            ))
        }
        ConnectionError::ApplicationClosed(close) if is_refusal(close) => {
            Ended::Refused(format!("{remote} says: {}", String::from_utf8_lossy(&close.reason)))
        }
        ConnectionError::Reset => {
            Ended::Disconnected(format!("the leader at {remote} was restarted"))
        }
        ConnectionError::TimedOut => Ended::Disconnected(format!("no answer from {remote}")),
        reason => Ended::Disconnected(format!("the connection to {remote} ended: {reason}")),
    }
}

fn no_leader(remote: SocketAddr) -> String {
    format!("what answers at {remote} is no tierlock leader of this version; update the older side")
}

fn is_refusal(close: &ApplicationClose) -> bool {
    [CloseCode::OtherCluster, CloseCode::Unaccepted]
        .into_iter()
        .any(|code| close.error_code == VarInt::from_u32(code as u32))
}

/// Why a peer of a leader's port does not get through its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum TurnedAway {
    /// One of both sides does not accept the key of the other: they have different secrets.
    OtherSecret,
    /// Its credential has ended, by this leader's clock.
    CredentialEnded,
    /// Its credential is signed with this leader's secret and says what this release does not understand.
    CredentialUnknown,
    /// It does not speak as a client of this release does: it is of another one, or no tierlock client.
    OtherProtocol,
    /// One of both sides failed by a fault of its own.
    Failed,
}

impl TurnedAway {
    #[cfg(feature = "cli")]
    pub(in crate::host) const ALL: [TurnedAway; 5] = [
        TurnedAway::OtherSecret,
        TurnedAway::CredentialEnded,
        TurnedAway::CredentialUnknown,
        TurnedAway::OtherProtocol,
        TurnedAway::Failed,
    ];

    /// The word for it in logs and metrics.
    pub(in crate::host) fn as_str(self) -> &'static str {
        match self {
            TurnedAway::OtherSecret => "other_secret",
            // As of a connection that stands when its credential ends.
            TurnedAway::CredentialEnded => "ended",
            TurnedAway::CredentialUnknown => "unknown_credential",
            TurnedAway::OtherProtocol => "other_protocol",
            TurnedAway::Failed => "failed",
        }
    }

    /// What a leader's handshake says of its peer. `None`: that has only given up, or was never heard.
    pub(super) fn of(reason: &ConnectionError) -> Option<TurnedAway> {
        use AlertDescription::*;
        let HandshakeAlert { alert, is_own } = HandshakeAlert::of(reason)?;
        Some(match (alert, is_own) {
            (CloseNotify | UserCanceled, false) => return None,
            // The first two are said by the side that checks a certificate, the third by a client that
            // compares the leader's key with its own.
            (UnknownCA | DecryptError, _) | (AccessDenied, false) => TurnedAway::OtherSecret,
            (CertificateExpired, true) => TurnedAway::CredentialEnded,
            (AccessDenied, true) => TurnedAway::CredentialUnknown,
            (InternalError, _) => TurnedAway::Failed,
            _ => TurnedAway::OtherProtocol,
        })
    }
}

/// The TLS alert that has ended a handshake, and which side has found the fault.
struct HandshakeAlert {
    alert: AlertDescription,
    is_own: bool,
}

impl HandshakeAlert {
    fn of(reason: &ConnectionError) -> Option<HandshakeAlert> {
        let (code, is_own) = match reason {
            ConnectionError::TransportError(error) => (u64::from(error.code), true),
            ConnectionError::ConnectionClosed(close) => (u64::from(close.error_code), false),
            _ => return None,
        };
        // RFC 9001, 4.8: an alert is a code of these.
        let alert = code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())?;
        Some(HandshakeAlert { alert: alert.into(), is_own })
    }

    /// What it says to a client, if it is no forgery.
    fn in_words(&self, remote: SocketAddr) -> Ended {
        use AlertDescription::*;
        let alert = self.alert;
        let other_secret = || {
            Ended::Refused(format!(
                "the leader at {remote} has another secret; both sides need the same secret file"
            ))
        };
        match (alert, self.is_own) {
            (NoApplicationProtocol, _) => Ended::Disconnected(no_leader(remote)),
            (InternalError, true) => Ended::Disconnected(format!(
                "the handshake with {remote} failed by a fault of this program's own"
            )),
            (InternalError, false) => Ended::Disconnected(format!(
                "the leader at {remote} failed in the handshake by a fault of its own"
            )),
            (UnknownCA, _) | (AccessDenied, true) | (DecryptError, false) => other_secret(),
            (DecryptError, true) => Ended::Refused(format!(
                "what answers at {remote} shows the key of this secret's leaders, and does not prove \
                 that it has it"
            )),
            (AccessDenied, false) => Ended::Refused(format!(
                "the leader at {remote} does not understand this credential, which a later release has \
                 issued; update the leader"
            )),
            (CertificateExpired, false) => Ended::Refused(format!(
                "the leader at {remote} says: this credential has ended, by the leader's clock; have \
                 another one issued"
            )),
            (
                BadCertificate
                | UnsupportedCertificate
                | CertificateRevoked
                | CertificateUnknown
                | CertificateRequired,
                false,
            ) => Ended::Refused(format!(
                "the leader at {remote} does not take a credential of this kind ({alert:?}); update the \
                 older side"
            )),
            _ => Ended::Disconnected(format!("{} ({alert:?})", no_leader(remote))),
        }
    }
}

/// How the connection of a peer ends that is not accepted for this.
pub(super) fn closes_for(why: Unaccepted, dialect: Dialect) -> (CloseCode, &'static str) {
    let code = match dialect {
        Dialect::Locks => CloseCode::Protocol,
        Dialect::Group => CloseCode::OtherCluster,
    };
    match why {
        // The file may have the new one by now.
        Unaccepted::OtherSecret => {
            (code, "the leader does not accept this secret any more; give this client the new one")
        }
        Unaccepted::OtherPurpose => (code, FOR_SOMETHING_ELSE),
        Unaccepted::Revoked => (CloseCode::Unaccepted, "this credential was revoked"),
        Unaccepted::Ended => (
            CloseCode::Unaccepted,
            "this credential has ended, by the leader's clock; have another one issued",
        ),
    }
}

/// Why the connection of a client ends that has as many as are still free.
pub(super) const HAS_ITS_SHARE: &str = "the leader has no room for another connection with this \
    credential; close managers that are not needed, or start it with a larger --sessions-max";

/// Why a connection ends whose credential is of another role than it was begun for.
pub(super) const FOR_SOMETHING_ELSE: &str = "this credential is good for another protocol alone: its role \
    is for something else";

#[cfg(test)]
mod tests;

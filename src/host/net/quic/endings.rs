//! Why a connection ended, in words.

use std::net::SocketAddr;

use quinn_proto::{ApplicationClose, ConnectionError, VarInt};

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
    let code = code_of(reason);
    let is_forgeable = is_handshaking && matches!(reason, ConnectionError::ConnectionClosed(_));
    match (code, reason) {
        (Some(NO_APPLICATION_PROTOCOL), _) | (_, ConnectionError::VersionMismatch) => {
            Ended::Disconnected(format!(
                "what answers at {remote} is no tierlock leader of this version; update the older side"
            ))
        }
        (Some(CERTIFICATE_EXPIRED), _) if !is_forgeable => Ended::Refused(format!(
            "the leader at {remote} says: this credential has ended, by the leader's clock; have another \
             one issued"
        )),
        (Some(CONNECTION_REFUSED), _) => Ended::Disconnected(format!(
            "the leader at {remote} has no room for another connection from this address; close \
             managers that are not needed, or start it with a larger --sessions-max"
        )),
        (Some(code), _) if CRYPTO.contains(&code) && !is_forgeable => Ended::Refused(format!(
            "the leader at {remote} has another secret; both sides need the same secret file"
        )),
        (_, ConnectionError::ApplicationClosed(close)) if is_refusal(close) => {
            Ended::Refused(format!("{remote} says: {}", String::from_utf8_lossy(&close.reason)))
        }
        (_, ConnectionError::Reset) => {
            Ended::Disconnected(format!("the leader at {remote} was restarted"))
        }
        (_, ConnectionError::TimedOut) => Ended::Disconnected(format!("no answer from {remote}")),
        (_, reason) => Ended::Disconnected(format!("the connection to {remote} ended: {reason}")),
    }
}

fn is_refusal(close: &ApplicationClose) -> bool {
    [CloseCode::OtherCluster, CloseCode::Unaccepted]
        .into_iter()
        .any(|code| close.error_code == VarInt::from_u32(code as u32))
}

/// Whether one of both sides has ended a handshake since it does not accept the other's key.
pub(super) fn is_for_another_secret(reason: &ConnectionError) -> bool {
    let others = [NO_APPLICATION_PROTOCOL, CERTIFICATE_EXPIRED];
    let is_it = |code| CRYPTO.contains(&code) && !others.contains(&code);
    code_of(reason).is_some_and(is_it)
}

fn code_of(reason: &ConnectionError) -> Option<u64> {
    match reason {
        ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    }
}

const CRYPTO: std::ops::Range<u64> = 0x100..0x200;
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;

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

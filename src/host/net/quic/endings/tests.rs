use quinn_proto::{ConnectionClose, TransportError, TransportErrorCode};

use super::*;

fn found(alert: AlertDescription) -> ConnectionError {
    ConnectionError::TransportError(TransportError {
        code: TransportErrorCode::crypto(alert.into()),
        frame: None,
        reason: String::new(),
    })
}

fn heard(alert: AlertDescription) -> ConnectionError {
    ConnectionError::ConnectionClosed(ConnectionClose {
        error_code: TransportErrorCode::crypto(alert.into()),
        frame_type: None,
        reason: Default::default(),
    })
}

#[test]
fn a_leader_tells_apart_why_a_handshake_failed() {
    use AlertDescription::*;
    for (alert, is_found, is_heard) in [
        (UnknownCA, Some(TurnedAway::OtherSecret), Some(TurnedAway::OtherSecret)),
        (DecryptError, Some(TurnedAway::OtherSecret), Some(TurnedAway::OtherSecret)),
        // A client of ours says so of a leader's key that is none of its secret's.
        (AccessDenied, Some(TurnedAway::CredentialUnknown), Some(TurnedAway::OtherSecret)),
        // A leader's key has no end.
        (CertificateExpired, Some(TurnedAway::CredentialEnded), Some(TurnedAway::OtherProtocol)),
        (InternalError, Some(TurnedAway::Failed), Some(TurnedAway::Failed)),
        (UserCanceled, Some(TurnedAway::OtherProtocol), None),
        (CloseNotify, Some(TurnedAway::OtherProtocol), None),
    ] {
        assert_eq!(TurnedAway::of(&found(alert)), is_found, "found: {alert:?}");
        assert_eq!(TurnedAway::of(&heard(alert)), is_heard, "heard: {alert:?}");
    }
    // What browsers, scanners and other releases bring about.
    for alert in [
        NoApplicationProtocol,
        HandshakeFailure,
        BadCertificate,
        UnsupportedCertificate,
        CertificateUnknown,
        CertificateRequired,
        ProtocolVersion,
        IllegalParameter,
        DecodeError,
        MissingExtension,
        UnexpectedMessage,
        Unknown(0xfe),
    ] {
        for reason in [found(alert), heard(alert)] {
            assert_eq!(TurnedAway::of(&reason), Some(TurnedAway::OtherProtocol), "{alert:?}");
        }
    }
}

#[test]
fn what_is_no_alert_turns_no_peer_away() {
    let refused = TransportError {
        code: TransportErrorCode::CONNECTION_REFUSED,
        frame: None,
        reason: String::new(),
    };
    for reason in [
        ConnectionError::TransportError(refused),
        ConnectionError::TimedOut,
        ConnectionError::Reset,
    ] {
        assert_eq!(TurnedAway::of(&reason), None, "{reason:?}");
    }
}

#[test]
fn a_client_is_told_what_an_alert_means_and_whether_to_try_again() {
    use AlertDescription::*;
    let leader = "10.0.0.1:7420".parse().unwrap();
    let is_final = |reason: &ConnectionError, words: &str| {
        match why(reason, leader, false) {
            Ended::Refused(text) => assert!(text.contains(words), "{reason:?}: {text}"),
            other => panic!("{reason:?}: {other:?}"),
        }
        // The same from any host on the path, before there are keys.
        let is_forgery = matches!(reason, ConnectionError::ConnectionClosed(_));
        let ended = why(reason, leader, true);
        assert_eq!(matches!(ended, Ended::Disconnected(_)), is_forgery, "{reason:?}: {ended:?}");
    };
    is_final(&found(AccessDenied), "another secret");
    is_final(&heard(UnknownCA), "another secret");
    is_final(&heard(DecryptError), "another secret");
    is_final(&found(DecryptError), "does not prove");
    is_final(&heard(AccessDenied), "update the leader");
    is_final(&heard(CertificateExpired), "has ended");
    is_final(&heard(UnsupportedCertificate), "credential of this kind (UnsupportedCertificate)");
    is_final(&heard(BadCertificate), "credential of this kind (BadCertificate)");
    let passes = |reason: &ConnectionError, words: &str| match why(reason, leader, false) {
        Ended::Disconnected(text) => assert!(text.contains(words), "{reason:?}: {text}"),
        other => panic!("{reason:?}: {other:?}"),
    };
    passes(&heard(NoApplicationProtocol), "no tierlock leader of this version");
    passes(
        &found(HandshakeFailure),
        "no tierlock leader of this version; update the older side (Hand",
    );
    passes(&heard(HandshakeFailure), "no tierlock leader of this version");
    passes(&found(InternalError), "of this program's own");
    passes(&heard(InternalError), "of its own");
}

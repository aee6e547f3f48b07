//! Which credentials a leader accepts, at the handshake and at each look at its files from then on.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::{
    credential::AcceptedCredential,
    serials::RevokedSerials,
    tls::{Dialect, Secret},
};

/// What a leader's files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct Acceptance {
    pub(in crate::host) secret: Secret,
    pub(in crate::host) revoked: Arc<RevokedSerials>,
}

/// Why a peer is not accepted that has got through the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Unaccepted {
    /// Its secret is none of the file's any more.
    OtherSecret,
    Revoked,
    Ended,
    /// Its role is for something else than it was begun for.
    OtherPurpose,
}

impl Acceptance {
    /// What a peer has that proved to have the key of this certificate, and speaks this.
    pub(in crate::host) fn judge(
        &self,
        presented: &CertificateDer<'_>,
        dialect: Dialect,
    ) -> Result<AcceptedCredential, Unaccepted> {
        // It may have been taken out of the file while the handshake was under way.
        let credential = self.secret.accept(presented).map_err(|_| Unaccepted::OtherSecret)?;
        if !dialect.is_for(&credential.terms.purpose) {
            return Err(Unaccepted::OtherPurpose);
        }
        self.still_accepts(&credential).map(|()| credential)
    }

    /// Whether one that was accepted still is. The certificate's signature is not checked again: with
    /// 10,000 connections that would hold the leader up for half a second, each minute.
    pub(in crate::host) fn still_accepts(
        &self,
        credential: &AcceptedCredential,
    ) -> Result<(), Unaccepted> {
        if !self.secret.knows_issuer_of(credential) {
            Err(Unaccepted::OtherSecret)
        } else if self.revoked.has(&credential.terms.serial) {
            Err(Unaccepted::Revoked)
        } else if credential.has_ended() {
            Err(Unaccepted::Ended)
        } else {
            Ok(())
        }
    }
}

impl From<Secret> for Acceptance {
    fn from(secret: Secret) -> Acceptance {
        Acceptance { secret, revoked: Arc::default() }
    }
}

impl From<&Secret> for Acceptance {
    fn from(secret: &Secret) -> Acceptance {
        secret.clone().into()
    }
}

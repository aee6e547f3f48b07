//! What a client presents to leaders: the secret, or a credential that an owner of it has issued.

use std::{path::Path, sync::Arc};

use super::{
    issued::Credential,
    secret_file::{is_credential, read_private},
    tls::{ClientHandshake, Secret},
};
use crate::{error::LockError, proto::rights::Rights};

/// The keys of a client's `--secret-file`.
#[derive(Clone, Debug)]
pub(crate) enum ClientKeys {
    /// It may do everything.
    Secret(Secret),
    /// It may do what that says.
    Credential(Box<Credential>),
}

impl ClientKeys {
    /// Reads either.
    ///
    /// # Errors
    ///
    /// As [`Secret::read`] and [`Credential::read`].
    pub(crate) fn read(path: &Path) -> Result<ClientKeys, LockError> {
        let (text, is_pipe) = read_private(path, "secret")?;
        // What came through a pipe is gone.
        let file = (!is_pipe).then_some(path);
        Ok(match is_credential(&text) {
            true => ClientKeys::Credential(Credential::parse(&text, path, file)?.into()),
            false => ClientKeys::Secret(Secret::parse(&text, path, file)?),
        })
    }

    /// The client's side of the handshake.
    pub(in crate::host) fn client(&self) -> ClientHandshake {
        match self {
            ClientKeys::Secret(secret) => secret.client(),
            ClientKeys::Credential(credential) => credential.client(),
        }
    }

    /// What a client with them may do.
    pub(in crate::host) fn rights(&self) -> Arc<Rights> {
        match self {
            ClientKeys::Secret(_) => Arc::new(Rights::everything()),
            ClientKeys::Credential(credential) => credential.rights().clone(),
        }
    }

    /// The file that they were read from, if that can be read again.
    pub(in crate::host) fn file(&self) -> Option<&Path> {
        match self {
            ClientKeys::Secret(secret) => secret.file(),
            ClientKeys::Credential(credential) => credential.file(),
        }
    }

    /// What their file has by now. Nothing of one that is missing or damaged: they stay as they are.
    pub(in crate::host) fn read_again(&self) -> Option<ClientKeys> {
        ClientKeys::read(self.file()?).ok()
    }
}

impl From<Secret> for ClientKeys {
    fn from(secret: Secret) -> ClientKeys {
        ClientKeys::Secret(secret)
    }
}

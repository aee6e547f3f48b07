//! Credentials for clients without the secret: what they say, and the files that they are in.
//!
//! Such a file has a private key, the certificate for it, and the public keys that leaders may present,
//! each in the form that other programs read as well (RFC 7468). With it a client takes locks, as far as
//! its certificate says; no leader serves with it, since it has the key of none.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pem::Pem;
use rustls::{
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::{
    credential::{CertificateTerms, CredentialPurpose, CredentialTerms, OWN_SUBJECT, no_end},
    secret_file::{is_credential, read_private, write_private},
    serials::CredentialSerial,
    tls::{AcceptedLeaders, ClientHandshake, Dialect, Secret, client_handshake, provider},
};
use crate::{
    error::{LockError, LockErrorKind},
    host::random_bytes,
    name::Name,
    proto::{
        TIME_TO_LIVE,
        rights::{Rights, Role},
        wire::Identity,
    },
};

/// What a client without the secret proves to leaders: a role, the names that it is for, and its label.
///
/// It is issued by an owner of the [`Secret`], and its file is a client's
/// [`secret_file`](crate::LockManagerBuilder::secret_file). The guide's page
/// [`security`](crate::guide::security) says how credentials are used, exchanged and revoked.
///
/// # Example
/// ```no_run
/// use tierlock::{Credential, Role, Secret};
///
/// Secret::read("/etc/tierlock.key")?
///     .issue(Role::Lock, "checkout")
///     .names(["orders/"])
///     .write("/etc/shop/checkout.key")?;
/// let credential = Credential::read("/etc/shop/checkout.key")?;
/// assert_eq!((credential.role(), credential.label()), (Role::Lock, "checkout"));
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone)]
pub struct Credential {
    key: Arc<CertifiedKey>,
    /// The public keys that its leaders may present.
    leaders: Vec<Vec<u8>>,
    label: Arc<str>,
    serial: CredentialSerial,
    rights: Arc<Rights>,
    until: Option<Duration>,
    /// Where it was read, if it can be read again.
    file: Option<Arc<Path>>,
}

impl Credential {
    /// Reads a credential's file, which is protected as a secret's is.
    ///
    /// # Errors
    ///
    /// `Config` if the file is missing, is no credential, belongs to another user, or may be written by
    /// others than its owner or read by all users; `Io` if it cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Credential, LockError> {
        let path = path.as_ref();
        let (text, is_pipe) = read_private(path, "secret")?;
        if !is_credential(&text) {
            return Err(LockError::config(format!(
                "{} is no credential; `tierlock secret issue` makes one",
                path.display()
            )));
        }
        let file = (!is_pipe).then_some(path);
        Credential::parse(&text, path, file)
    }

    /// What the file at `shown` has.
    pub(super) fn parse(
        text: &[u8],
        shown: &Path,
        file: Option<&Path>,
    ) -> Result<Credential, LockError> {
        let read =
            Credential::decode(text).map(|read| Credential { file: file.map(Into::into), ..read });
        read.ok_or_else(|| {
            LockError::config(format!(
                "the credential file {} is damaged, or of a later release; have it issued again",
                shown.display()
            ))
        })
    }

    fn decode(text: &[u8]) -> Option<Credential> {
        let (mut key, mut certificate, mut leaders) = (None, None, Vec::new());
        for part in pem::parse_many(text).ok()? {
            let before = match part.tag() {
                PRIVATE_KEY => key.replace(part),
                CERTIFICATE => certificate.replace(part),
                PUBLIC_KEY => {
                    leaders.push(part.into_contents());
                    None
                }
                _ => return None,
            };
            if before.is_some() {
                return None;
            }
        }
        let key = PrivatePkcs8KeyDer::from(key?.into_contents());
        let certificate = CertificateDer::from(certificate?.into_contents());
        let terms = CredentialTerms::read(&certificate)?;
        let (CredentialPurpose::Client(rights), Some(label)) = (terms.purpose, terms.label) else {
            return None;
        };
        let signer = provider().key_provider.load_private_key(key.into()).ok()?;
        let key = CertifiedKey::new(vec![certificate], signer);
        key.keys_match().ok()?;
        (!leaders.is_empty()).then(|| Credential {
            key: key.into(),
            leaders,
            label,
            serial: terms.serial,
            rights: rights.into(),
            until: terms.until,
            file: None,
        })
    }

    /// By which it is revoked: 32 hexadecimal digits.
    pub fn serial(&self) -> String {
        self.serial.to_string()
    }

    /// What its holder may do.
    pub fn role(&self) -> Role {
        self.rights.role()
    }

    /// The names that it is for, and the beginnings of names, which end in `/`; of none: every name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rights.names().iter().map(Name::as_str)
    }

    /// How its holder is shown to others.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// From when on leaders do not accept it any more, by their own wall clocks; `None`: it has no end.
    pub fn until(&self) -> Option<SystemTime> {
        self.until.map(|until| SystemTime::UNIX_EPOCH + until)
    }

    /// The longest time to live that its holder may ask for, if it is less than what the leader accepts.
    pub fn time_to_live_max(&self) -> Option<Duration> {
        self.rights.time_to_live_max()
    }

    pub(super) fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The client's side of the handshake.
    pub(super) fn client(&self) -> ClientHandshake {
        let leaders = AcceptedLeaders::new(self.leaders.clone());
        client_handshake(self.key.clone(), Dialect::Locks, leaders)
    }
}

/// Its key stays out of logs.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credential { label, serial, rights, .. } = self;
        write!(f, "Credential({label:?}, serial {serial}, {rights:?})")
    }
}

const PRIVATE_KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";
const PUBLIC_KEY: &str = "PUBLIC KEY";

/// What stands before the keys, for people; programs skip it.
const HEADING: &str =
    "A credential of tierlock, for a client; `tierlock secret show FILE` says what it is for.\n";

/// The longest URI of a certificate: a client's handshake fits what a leader keeps of it.
const URI_BYTES_MAX: usize = 2048;

/// The longest label, in characters, as certificates bound it.
const LABEL_MAX: usize = 64;

/// The same in bytes, of which the protocol would cut off the rest: two labels would be shown alike.
const LABEL_BYTES_MAX: usize = Identity::TEXT_BYTES_MAX;

/// What a [`Credential`] is to say, until it is [written](CredentialBuilder::write).
#[derive(Clone, Debug)]
#[must_use = "no credential is issued before it is written"]
pub struct CredentialBuilder {
    secret: Secret,
    role: Role,
    label: String,
    names: Vec<String>,
    until: Option<SystemTime>,
    time_to_live_max: Option<Duration>,
}

impl Secret {
    /// Begins to issue a credential: of this role, for a client with this label.
    ///
    /// Of a file with several secrets the last one signs it, and its holder accepts the leaders of all.
    /// While secrets are exchanged the last is the new one, so that the credential is good when the
    /// others are gone, until that is made the first: from then on issue none before the old one is
    /// taken out.
    pub fn issue(&self, role: Role, label: impl Into<String>) -> CredentialBuilder {
        CredentialBuilder {
            secret: self.clone(),
            role,
            label: label.into(),
            names: Vec::new(),
            until: None,
            time_to_live_max: None,
        }
    }
}

impl CredentialBuilder {
    /// For these names alone: one that ends in `/` stands for all that begin with it, another for itself.
    /// They are compared byte by byte, as they are written here. May be called several times; if it is
    /// not, the credential is for every name.
    pub fn names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names.extend(names.into_iter().map(Into::into));
        self
    }

    /// From then on leaders do not accept it any more, by their own wall clocks. Without it the
    /// credential is good until it is revoked, or the secret is exchanged.
    pub fn until(mut self, until: SystemTime) -> Self {
        self.until = Some(until);
        self
    }

    /// The longest time to live that its holder may ask for, 1 s to 60 s, where the leader accepts more.
    pub fn time_to_live_max(mut self, time_to_live: Duration) -> Self {
        self.time_to_live_max = Some(time_to_live);
        self
    }

    /// Issues it into a file that must not exist yet, readable by its owner only.
    ///
    /// # Errors
    ///
    /// `Config` for a name, a label or a time that cannot be, and if the file exists (it is never
    /// overwritten); `Io` if it cannot be written.
    pub fn write(self, path: impl AsRef<Path>) -> Result<Credential, LockError> {
        let terms = self.terms()?;
        let (certificate, key) = self.secret.last_issuer().issue(&terms);
        let parts = [
            Pem::new(PRIVATE_KEY, key.secret_pkcs8_der()),
            Pem::new(CERTIFICATE, certificate.to_vec()),
        ];
        let leaders = self.secret.leaders().iter().map(|key| Pem::new(PUBLIC_KEY, key.clone()));
        let parts: Vec<_> = parts.into_iter().chain(leaders).collect();
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = HEADING.to_owned() + &pem::encode_many_config(&parts, lines);
        write_private(path.as_ref(), "credential", &text)?;
        let made = Credential::decode(text.as_bytes());
        Ok(made.expect("what was written just now can be read"))
    }

    fn terms(&self) -> Result<CertificateTerms, LockError> {
        let label = &self.label;
        let is_label = !label.is_empty()
            && label.chars().count() <= LABEL_MAX
            && label.len() <= LABEL_BYTES_MAX
            && !label.chars().any(char::is_control)
            && label.as_str() != OWN_SUBJECT;
        if !is_label {
            return Err(LockError::config(format!(
                "a credential's label has 1 to {LABEL_MAX} characters, none of them a control character, in \
                 at most {LABEL_BYTES_MAX} bytes, and is not {OWN_SUBJECT:?}"
            )));
        }
        let names = self.names.iter().map(|text| {
            Name::new(text).map_err(|error| {
                LockError::config(format!("a credential cannot be for the name {text:?}: {error}"))
            })
        });
        let names = names.collect::<Result<Vec<_>, _>>()?;
        if self.time_to_live_max.is_some_and(|limit| !TIME_TO_LIVE.contains(&limit)) {
            return Err(LockError::config("a credential's longest time to live is 1 s to 60 s"));
        }
        let until = self.until.map(|until| {
            let since_epoch = until.duration_since(SystemTime::UNIX_EPOCH).ok();
            since_epoch.filter(|at| until > SystemTime::now() && *at < no_end()).ok_or_else(|| {
                LockError::config("a credential's end is in the future, and before the year 4096")
            })
        });
        let until = until.transpose()?;
        let purpose =
            CredentialPurpose::Client(Rights::new(self.role, names, self.time_to_live_max));
        if purpose.uri().len() > URI_BYTES_MAX {
            return Err(LockError::config(
                "a credential cannot be for so many names: give it a beginning that they share, as \
                 `orders/`, or issue several",
            ));
        }
        let serial = random_bytes().map_err(|error| {
            LockError::new(LockErrorKind::Io, "the system gives no random bytes").with_source(error)
        })?;
        let serial = CredentialSerial::of_random(serial);
        Ok(CertificateTerms { purpose, label: label.clone(), serial, until })
    }
}

#[cfg(test)]
mod tests;

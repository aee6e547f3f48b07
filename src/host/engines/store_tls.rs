//! TLS on the way to a server: the same for locks that it keeps and for a journal in it.
//!
//! The server's certificate is to be signed by a CA that is trusted, and to be for the name or address
//! that the URL has. There is no weaker way: without the name a certificate proves nothing.

use std::{error::Error, io, path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{error::Result, host::service_url::ServiceUrl};

/// How a server is to prove which one it is: by a certificate that these have signed.
#[derive(Clone)]
pub(in crate::host) struct StoreTls {
    #[cfg_attr(
        not(any(
            feature = "etcd",
            feature = "postgres",
            feature = "redis",
            feature = "zookeeper"
        )),
        allow(dead_code, reason = "MySQL's client takes the certificates themselves")
    )]
    roots: Arc<RootCertStore>,
    /// The same as they were found.
    #[cfg(feature = "mysql")]
    certificates: Arc<[CertificateDer<'static>]>,
}

impl StoreTls {
    /// What the URL says of it: `etcds://…`, `?sslmode=verify-full`, and `?ca=FILE`. `None` where it is
    /// none of TLS.
    pub(in crate::host) fn take(url: &mut ServiceUrl) -> Result<Option<StoreTls>> {
        let ca = url.take("ca")?.map(PathBuf::from);
        let is_secured = url.is_secured()?;
        url.take("sslmode")?;
        match (is_secured, ca) {
            (false, None) => Ok(None),
            (false, Some(_)) => Err(url.refuse(format_args!(
                "the option ca names the CA of a server that is reached by TLS: write {}",
                url.kind.tls_form()
            ))),
            (true, ca) => StoreTls::new(url, ca).map(Some),
        }
    }

    fn new(url: &ServiceUrl, ca: Option<PathBuf>) -> Result<StoreTls> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        match &ca {
            Some(file) => {
                let refused = |what: &dyn std::fmt::Display| {
                    url.refuse(format_args!("the CA file {}: {what}", file.display()))
                };
                let text = std::fs::read(file).map_err(|error| refused(&error))?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    let certificate = certificate.map_err(|error| refused(&error))?;
                    roots.add(certificate.clone()).map_err(|error| refused(&error))?;
                    certificates.push(certificate);
                }
                if roots.is_empty() {
                    return Err(refused(&"it has no certificate (-----BEGIN CERTIFICATE-----)"));
                }
            }
            None => {
                // One of a system that cannot be read is passed over.
                let found = rustls_native_certs::load_native_certs().certs.into_iter();
                certificates.extend(found.filter(|one| roots.add(one.clone()).is_ok()));
                if roots.is_empty() {
                    let what = "this system has no CA certificates: name one by ?ca=FILE";
                    return Err(url.refuse(what));
                }
            }
        }
        Ok(StoreTls {
            roots: Arc::new(roots),
            #[cfg(feature = "mysql")]
            certificates: certificates.into(),
        })
    }

    /// What is trusted.
    #[cfg(feature = "etcd")]
    pub(in crate::host) fn roots(&self) -> &RootCertStore {
        &self.roots
    }

    /// What is trusted, one certificate each.
    #[cfg(feature = "mysql")]
    pub(in crate::host) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    #[cfg(any(feature = "postgres", feature = "redis", feature = "zookeeper"))]
    pub(in crate::host) fn client_config(&self) -> rustls::ClientConfig {
        use rustls::{ClientConfig, crypto::ring};
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has what TLS 1.2 and 1.3 need");
        builder.with_root_certificates(self.roots.clone()).with_no_client_auth()
    }
}

/// For a client that takes none but the process's own cryptography: ring, unless the program that this
/// is a part of has chosen another.
#[cfg(feature = "mysql")]
pub(in crate::host) fn use_ring_by_default() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have chosen meanwhile.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// What is wrong with a server's certificate, if that is among the causes of an error.
pub(in crate::host) fn certificate_trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let found = causes(error).find_map(|cause| match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(trouble) => Some(trouble.clone()),
        _ => None,
    })?;
    Some(match found {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is not signed by a CA that is trusted here: if it is the right \
             server, name its CA by ?ca=FILE"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is for another name than the URL has: {found}")
        }
        other => format!("the server's certificate is not good: {other}"),
    })
}

/// Likewise, of all that will be the same at the next attempt.
#[cfg(any(feature = "mysql", feature = "redis", feature = "zookeeper"))]
pub(in crate::host) fn handshake_trouble(error: &(dyn Error + 'static)) -> Option<String> {
    use rustls::AlertDescription::{BadCertificate, CertificateRequired};
    let found = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
    certificate_trouble(error).or(match found? {
        rustls::Error::InvalidMessage(_) => Some(NO_TLS.to_owned()),
        rustls::Error::AlertReceived(BadCertificate | CertificateRequired) => Some(
            "the server wants to see a certificate of each client's own, and there is none: have it \
             ask for a login"
                .to_owned(),
        ),
        _ => None,
    })
}

/// What is said of a server that answers, and not by TLS.
#[cfg(any(feature = "mysql", feature = "redis", feature = "zookeeper"))]
pub(in crate::host) const NO_TLS: &str =
    "it does not speak TLS there, and nothing is sent to it unencrypted: name the port that does";

/// An error and what it comes of. What stands in an `io::Error` is no source of it, nor is what an error
/// shares with its copies.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let shared = || error.downcast_ref::<Arc<dyn Error + Send + Sync>>().map(|error| &**error);
        match inner.or_else(shared) {
            Some(inner) => Some(inner as &'a (dyn Error + 'static)),
            None => error.source(),
        }
    })
}

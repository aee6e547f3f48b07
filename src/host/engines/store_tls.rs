//! TLS on the way to a server: the same for locks that it keeps and for a journal in it.
//!
//! The server's certificate is to be signed by a CA that is trusted, and to be for the name or address
//! that the URL has. There is no weaker way: without the name a certificate proves nothing.

use std::{error::Error, io, path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{error::Result, host::service_url::ServiceUrl};

/// How a server is to prove which one it is: by a certificate that these have signed.
#[derive(Clone)]
pub(in crate::host) struct StoreTls {
    roots: Arc<RootCertStore>,
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
            (false, Some(_)) => Err(url.refuse(
                "the option ca names the CA of a server that is reached by TLS: write etcds://…, or for \
                 PostgreSQL ?sslmode=verify-full",
            )),
            (true, ca) => StoreTls::new(url, ca).map(Some),
        }
    }

    fn new(url: &ServiceUrl, ca: Option<PathBuf>) -> Result<StoreTls> {
        let mut roots = RootCertStore::empty();
        match &ca {
            Some(file) => {
                let refused = |what: &dyn std::fmt::Display| {
                    url.refuse(format_args!("the CA file {}: {what}", file.display()))
                };
                let text = std::fs::read(file).map_err(|error| refused(&error))?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    let certificate = certificate.map_err(|error| refused(&error))?;
                    roots.add(certificate).map_err(|error| refused(&error))?;
                }
                if roots.is_empty() {
                    return Err(refused(&"it has no certificate (-----BEGIN CERTIFICATE-----)"));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    let what = "this system has no CA certificates: name one by ?ca=FILE";
                    return Err(url.refuse(what));
                }
            }
        }
        Ok(StoreTls { roots: Arc::new(roots) })
    }

    /// What is trusted.
    #[cfg(feature = "etcd")]
    pub(in crate::host) fn roots(&self) -> &RootCertStore {
        &self.roots
    }

    #[cfg(feature = "postgres")]
    pub(in crate::host) fn client_config(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has what TLS 1.2 and 1.3 need");
        builder.with_root_certificates(self.roots.clone()).with_no_client_auth()
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

/// An error and what it comes of. What stands in an `io::Error` is no source of it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as &'a (dyn Error + 'static)),
            None => error.source(),
        }
    })
}

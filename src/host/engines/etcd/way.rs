//! The way to the servers of an etcd: their addresses, TLS, and what their errors mean.

use etcd_client::{ConnectOptions, Error, TlsOptions};

use crate::{
    error::Result,
    host::{
        engines::{
            fault::EngineFault,
            store_tls::{StoreTls, certificate_trouble},
        },
        service_url::ServiceUrl,
    },
};

/// The addresses of a URL, as the client library wants them.
pub(in crate::host) fn endpoints(url: &ServiceUrl, tls: Option<&StoreTls>) -> Result<Vec<String>> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = |address: &String| {
        let (host, port) = url.host_and_port(address, 2379)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(format!("{scheme}://{host}:{port}"))
    };
    url.addresses.iter().map(endpoint).collect()
}

/// Has a server prove which one it is.
pub(in crate::host) fn secured(options: ConnectOptions, tls: Option<&StoreTls>) -> ConnectOptions {
    let Some(tls) = tls else { return options };
    let anchors = tls.roots().roots.iter().cloned();
    options.with_tls(TlsOptions::new().trust_anchors(anchors))
}

/// What is wrong with the certificate of the member that was asked, if that is it.
pub(super) fn bad_certificate(error: &Error) -> Option<String> {
    let cause: Option<&(dyn std::error::Error + 'static)> = match error {
        Error::GRpcStatus(status) => Some(status),
        Error::TransportError(trouble) => Some(trouble),
        _ => None,
    };
    cause.and_then(certificate_trouble)
}

/// What an error of the cluster at this place means.
pub(in crate::host) fn etcd_fault(shown: &str, error: &Error) -> EngineFault {
    if let Some(trouble) = bad_certificate(error) {
        return EngineFault::refused(format!("{shown}: {trouble}"));
    }
    let Error::GRpcStatus(status) = error else {
        return EngineFault::Trouble(format!("{shown}: {error}"));
    };
    let text = status.message();
    let is_login = text.contains("auth")
        || text.contains("user name is empty")
        || text.contains("permission denied");
    match i32::from(status.code()) {
        // Invalid argument, permission denied, unauthenticated.
        3 | 7 | 16 if is_login => {
            EngineFault::refused(format!("{shown} refused the login: {text}"))
        }
        7 => EngineFault::refused(format!("{shown} does not let this user do that: {text}")),
        _ => EngineFault::Trouble(format!("{shown}: {text}")),
    }
}

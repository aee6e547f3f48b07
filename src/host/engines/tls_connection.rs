//! A connection by TLS, for clients that take one that is made.

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    fault::EngineFault,
    store_tls::{NO_TLS, StoreTls, handshake_trouble},
};

/// One to a server that has proven to be the one of this name.
pub(super) async fn connect(
    tls: &StoreTls,
    host: &str,
    port: u16,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(tls.client_config())).connect(name, stream).await
}

/// Why there is none to the server that is shown so.
pub(super) fn fault(shown: &str, error: &io::Error) -> EngineFault {
    match handshake_trouble(error) {
        Some(trouble) => EngineFault::refused(format!("{shown}: {trouble}")),
        // It may have ended just then; a server that was sent what it cannot read ends, too.
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            EngineFault::Trouble(format!("{shown} ended the connection at once: perhaps {NO_TLS}"))
        }
        None => EngineFault::Trouble(format!("{shown}: {error}")),
    }
}

/// The same where nothing came for so long.
pub(super) fn silent(shown: &str, patience: Duration) -> EngineFault {
    EngineFault::Trouble(format!("{shown} did not answer within {patience:.1?}: perhaps {NO_TLS}"))
}

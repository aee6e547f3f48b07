//! TLS to a PostgreSQL server, read along as a plain connection is.

use std::{future::Future, io, pin::Pin};

use tokio::net::TcpStream;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::told_pid::{ToldPid, ToldPidStream};
use crate::host::engines::store_tls::StoreTls;

pub(super) type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::TlsConnect;
type RustlsStream = <RustlsConnect as TlsConnect<TcpStream>>::Stream;

/// The handshake with a server of this name.
pub(super) fn handshake(tls: &StoreTls, host: &str) -> io::Result<RustlsConnect> {
    let mut connect = MakeRustlsConnect::new(tls.client_config());
    let made = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connect, host);
    made.map_err(io::Error::other)
}

/// The same, with what the server then says read along.
pub(super) struct TellingHandshake {
    pub(super) inner: RustlsConnect,
    pub(super) told: ToldPid,
}

impl TlsConnect<TcpStream> for TellingHandshake {
    type Stream = ToldPidStream<RustlsStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        let TellingHandshake { inner, told } = self;
        Box::pin(async move {
            let stream = inner.connect(stream).await.map_err(io::Error::other)?;
            Ok(ToldPidStream::new(stream, told))
        })
    }
}

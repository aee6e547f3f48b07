//! TLS to an ensemble, for a client that can do it with another cryptography alone.
//!
//! `zookeeper-client` takes no connection that is made by others, and its feature `tls` builds rustls with
//! aws-lc. So each session has a port of its own on 127.0.0.1 for each server, and what its client sends
//! there goes on by TLS. The ports are kept until the client has ended its session, so that no other
//! process can listen at one while the client may connect to it with its login. A process of this machine
//! that connects to one reaches the ensemble with no more rights than by itself, as no certificate of a
//! client's is shown there.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt, copy, sink, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use zookeeper_client::StateWatcher;

use crate::host::engines::{fault::EngineFault, store_tls::StoreTls, tls_connection};

/// The ports of one session.
pub(super) struct TlsRelay {
    /// As the client takes it.
    pub(super) cluster: String,
    troubles: RelayTroubles,
    /// They end with this, and the connections that they have begun with their client's.
    listeners: JoinSet<()>,
}

/// What stood in the way of TLS to each server, the last time.
type RelayTroubles = Arc<Mutex<Vec<Option<EngineFault>>>>;

/// Where one port leads.
struct RelayedServer {
    tls: StoreTls,
    host: String,
    port: u16,
    /// How long a handshake may take.
    patience: Duration,
    number: usize,
    troubles: RelayTroubles,
}

/// How long a server is heard out once the client has ended a connection: a socket that is closed over
/// what has not been read may take back what was sent.
const FAREWELL: Duration = Duration::from_secs(2);

impl TlsRelay {
    pub(super) async fn start(
        tls: &StoreTls,
        addresses: &[(String, u16)],
        patience: Duration,
    ) -> io::Result<TlsRelay> {
        let troubles = RelayTroubles::default();
        troubles.lock().resize_with(addresses.len(), || None);
        let (mut ports, mut listeners) = (Vec::new(), JoinSet::new());
        for (number, (host, port)) in addresses.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            ports.push(listener.local_addr()?.to_string());
            let (tls, host, port, troubles) = (tls.clone(), host.clone(), *port, troubles.clone());
            let server = RelayedServer { tls, host, port, patience, number, troubles };
            listeners.spawn(Arc::new(server).listen(listener));
        }
        Ok(TlsRelay { cluster: ports.join(","), troubles, listeners })
    }

    /// What stood in the way of TLS. One server with another certificate is no more than down: it is final
    /// if all of them say so.
    pub(super) fn trouble(&self) -> Option<EngineFault> {
        let mut troubles = self.troubles.lock();
        let is_final =
            |trouble: &Option<EngineFault>| matches!(trouble, Some(EngineFault::Final(_)));
        let are_final = troubles.iter().all(is_final);
        match troubles.iter_mut().find_map(Option::take)? {
            EngineFault::Final(error) if !are_final => {
                Some(EngineFault::Trouble(error.to_string()))
            }
            fault => Some(fault),
        }
    }

    /// Lasts as long as the session may connect.
    pub(super) async fn serve(self, mut session: StateWatcher) {
        while !session.peek_state().is_terminated() {
            session.changed().await;
        }
        drop(self.listeners);
    }
}

impl RelayedServer {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((client, _)) => drop(tokio::spawn(self.clone().carry(client))),
                // No descriptor is left, as a rule.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let _ = client.set_nodelay(true);
        let connecting = tls_connection::connect(&self.tls, &self.host, self.port);
        let shown = format!("{}:{}", self.host, self.port);
        let server = match timeout(self.patience, connecting).await {
            Ok(Ok(server)) => server,
            Ok(Err(error)) => return self.is_in_the_way(tls_connection::fault(&shown, &error)),
            Err(_) => return self.is_in_the_way(tls_connection::silent(&shown, self.patience)),
        };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = split(server);
        // What one of them has not read once the other has ended, it never will.
        tokio::select! {
            _ = copy(&mut from_client, &mut to_server) => {}
            _ = copy(&mut from_server, &mut to_client) => {}
        }
        let farewell = async {
            let _ = to_server.shutdown().await;
            let _ = copy(&mut from_server, &mut sink()).await;
        };
        let _ = to_client.shutdown().await;
        let _ = timeout(FAREWELL, farewell).await;
    }

    fn is_in_the_way(&self, fault: EngineFault) {
        self.troubles.lock()[self.number] = Some(fault);
    }
}

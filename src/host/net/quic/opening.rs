//! How a port is opened: where a leader listens, or for one connection to a leader.

use std::{
    collections::{BinaryHeap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    ClientConfig, Endpoint, EndpointConfig, HashedConnectionIdGenerator, ServerConfig,
    crypto::rustls::QuicClientConfig,
};
use quinn_udp::UdpSocketState;

use super::{
    Entrance, Ids, MESSAGE_BYTES, Port, PortShared, SOCKET_BUFFER_BYTES,
    config::{client_transport, server_config},
    handshakes::HandshakeQueue,
};
use crate::{
    host::net::{admission::Admission, client_keys::ClientKeys, tls::Secret},
    proto::ConnectionId,
};

impl Port {
    /// A port where a leader listens.
    pub(in crate::host) fn listen(
        address: SocketAddr,
        entrance: &Entrance,
        ids: Ids,
    ) -> io::Result<Port> {
        let Entrance { accepted, own, admission, dialects } = entrance;
        let secret = &accepted.secret;
        let mut config = EndpointConfig::new(secret.reset_key(own));
        let key = secret.connection_id_key(own);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        let server = Some(server_config(secret, dialects));
        let port = Port::new(bind(address)?, config, server, admission.clone(), 16)?;
        Ok(Port { accepted: Some(accepted.clone()), dialects, ids, ..port })
    }

    /// A port for one connection of a client to a leader, which is begun.
    pub(in crate::host) fn connect(
        id: ConnectionId,
        remote: SocketAddr,
        keys: &ClientKeys,
        silence: Duration,
    ) -> io::Result<Port> {
        Port::connect_by(keys.client(), id, remote, silence)
    }

    /// The same for one member of a group that turns to another.
    pub(in crate::host) fn connect_as_member(
        id: ConnectionId,
        remote: SocketAddr,
        secret: &Secret,
        silence: Duration,
    ) -> io::Result<Port> {
        Port::connect_by(secret.member(), id, remote, silence)
    }

    pub(super) fn connect_by(
        handshake: Arc<QuicClientConfig>,
        id: ConnectionId,
        remote: SocketAddr,
        silence: Duration,
    ) -> io::Result<Port> {
        let local = match remote {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Port::connect_from(local, id, remote, handshake, silence)
    }

    pub(super) fn connect_from(
        local: IpAddr,
        id: ConnectionId,
        remote: SocketAddr,
        handshake: Arc<QuicClientConfig>,
        silence: Duration,
    ) -> io::Result<Port> {
        let local = SocketAddr::new(local, 0);
        let socket = bind(local)?;
        // The kernel then tells us when nothing listens there.
        socket.connect(remote)?;
        // Its reset key is drawn for this port alone: with one that others have, a leader's for
        // instance, they could end its connection.
        let mut port = Port::new(socket, EndpointConfig::default(), None, Admission::new(1, 1), 4)?;
        port.begin_by(handshake, id, remote, silence)?;
        Ok(port)
    }

    /// Begins one more connection to the same leader.
    pub(in crate::host) fn begin(
        &mut self,
        id: ConnectionId,
        remote: SocketAddr,
        keys: &ClientKeys,
        silence: Duration,
    ) -> io::Result<()> {
        self.begin_by(keys.client(), id, remote, silence)
    }

    fn begin_by(
        &mut self,
        handshake: Arc<QuicClientConfig>,
        id: ConnectionId,
        remote: SocketAddr,
        silence: Duration,
    ) -> io::Result<()> {
        let mut config = ClientConfig::new(handshake);
        config.transport_config(Arc::new(client_transport(silence)));
        let (handle, inner) = self
            .endpoint
            .connect(Instant::now(), config, remote, "tierlock")
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.insert(handle, inner, id, remote);
        Ok(())
    }

    fn new(
        socket: UdpSocket,
        mut config: EndpointConfig,
        server: Option<ServerConfig>,
        admission: Admission,
        batch: usize,
    ) -> io::Result<Port> {
        let udp = UdpSocketState::new((&socket).into())?;
        // The kernel gives what it allows; a smaller buffer is slower, not wrong.
        let _ = udp.set_send_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES);
        let _ = udp.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES);
        // All clients return at once after a restart, and each is to hear of it at once. A reset is
        // shorter than what provoked it, so that two ports cannot go on for ever.
        config.min_reset_interval(Duration::ZERO);
        let endpoint =
            Endpoint::new(Arc::new(config), server.map(Arc::new), !udp.may_fragment(), None);
        Ok(Port {
            socket: Arc::new(socket),
            udp,
            endpoint,
            connections: Vec::new(),
            shared: PortShared::default(),
            admission,
            accepted: None,
            dialects: &[],
            is_refused: false,
            has_heard: false,
            waiting: HandshakeQueue::new(),
            ids: Ids { next: 0, step: 1 },
            busy: VecDeque::new(),
            timers: BinaryHeap::new(),
            stalls: VecDeque::new(),
            unsent: None,
            received: vec![0; batch * MESSAGE_BYTES],
            send_buffer: Vec::new(),
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One address is one address; `[::]` listens to IPv4 as well.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

//! One UDP socket and the QUIC connections on it: frames in, frames out.
//!
//! It knows no message, starts no thread and never sleeps. The driver of a [`Port`] calls
//! [`receive`](Port::receive) when its socket is readable, takes the events, writes frames, calls
//! [`transmit`](Port::transmit), and sleeps until [`timeout`](Port::timeout). QUIC itself is
//! quinn-proto's; without an async runtime between it and the socket a round trip pays for no
//! task switch, and any thread that holds the port can carry its frames.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, binary_heap::PeekMut},
    io::{self, IoSliceMut},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, EndpointEvent, HashedConnectionIdGenerator, Incoming, MtuDiscoveryConfig,
    ServerConfig, StreamEvent, StreamId, Transmit, TransportConfig, VarInt, WriteError,
    crypto::rustls::QuicClientConfig,
};
use quinn_udp::{RecvMeta, UdpSocketState};

use rustls::pki_types::CertificateDer;

use super::{
    admission::{Admission, Admitted, client_at},
    own_id::OwnId,
    tls::Secret,
};
use crate::proto::{
    ClientId, ConnectionId,
    client::Ended,
    numbered::Numbered,
    wire::{self, FrameReader, Message, Received},
};

/// What a connection may have waiting to be sent before it is given up: its peer does not read.
/// Less than that a session may have coming to it at once, which returns with as many leases and
/// requests as it may have: 131,072 answers of at most 500 bytes, or its own report of them.
const UNSENT_BYTES_MAX: usize = 64 << 20;
/// What an empty buffer keeps of its room.
const UNSENT_BYTES_KEPT: usize = 32 << 10;
/// What is taken from a stream ahead of the reading of its frames: at least one frame. The rest
/// stays with QUIC, which stops the peer.
const READ_AHEAD: usize = 2 * wire::FRAME_BYTES_MAX;
/// What a leader may send ahead of its client's reading.
const RECEIVE_WINDOW: u32 = 1 << 20;
/// What a client may send ahead of a leader's reading, in order or not: it is in the leader's
/// memory until then, for every one of many connections. It is no limit to the speed of a machine
/// nearby, and enough for a megabyte a second over 60 ms.
const LEADER_RECEIVE_WINDOW: u32 = 64 << 10;
/// Before the first round trip neither side knows how long one takes, and a packet that is lost in a
/// handshake is sent again after three of them. QUIC's own guess of 333 ms would make that a
/// second, in which a client that returns to a restarted leader has no lock. Leaders are near; for one
/// that is not, a few packets more are sent than are needed.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// What of a client's sending may be unacknowledged.
const SEND_WINDOW: u64 = 1 << 20;
/// What of a leader's sending to one client may be unacknowledged, for the same reasons as
/// [`LEADER_RECEIVE_WINDOW`].
const LEADER_SEND_WINDOW: u64 = 64 << 10;
/// What a leader keeps of a client's handshake that came out of order: the least that QUIC allows,
/// and several times what any client sends.
const LEADER_CRYPTO_BYTES: usize = 4 << 10;
/// Handshakes a leader has under way at most; more are refused, to be tried again.
pub(super) const HANDSHAKES_MAX: usize = 1024;
/// A leader gives a handshake up that takes longer. A peer with the secret needs a round trip.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);
/// Connections that ended without having shown the secret, which a leader keeps for a while to say
/// so again, at most; of more the oldest are forgotten at once. How long that while is their
/// peers have a say in.
///
/// So peers without the secret take no more than `HANDSHAKES_MAX + STRANGERS_MAX` connections,
/// however many they are and whatever they send. Each may have the connection's own state, one
/// handshake message of 64 KiB, and [`LEADER_CRYPTO_BYTES`] of handshake out of order at each of two
/// levels, which byte by byte with gaps between take some 150 KiB: below 400 KiB, together below
/// 420 MiB. There is no early data, and nothing else is read before they have shown it.
const STRANGERS_MAX: usize = 32;
/// The kernel's buffers, as far as it allows: a herd that returns after a restart fits in.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// One receive buffer: the most that the kernel joins into one message.
const MESSAGE_BYTES: usize = 64 << 10;
/// Datagrams in one write to the kernel.
const SEGMENTS_MAX: usize = 10;

/// Why a connection was closed, as a number on the wire; the words go along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CloseCode {
    /// The session ended in good order, or the connection is not needed.
    Done = 0,
    /// The peer broke the protocol.
    Protocol = 1,
    /// The peer did not read what it was sent.
    Slow = 2,
    /// A newer connection of the same session took over.
    Superseded = 3,
    /// The leader stops.
    Shutdown = 4,
    /// The leader has no memory for it just now.
    Busy = 5,
}

/// What happened on a port.
#[derive(Debug)]
pub(super) enum Event {
    /// The handshake is over: the peer has the secret. Its connection counts as this client's.
    Connected(ConnectionId, ClientId),
    /// There are frames to [`read`](Port::read).
    Readable(ConnectionId),
    /// The connection, or the attempt to make it, is over.
    Ended(ConnectionId, Ended),
}

pub(super) struct Port {
    socket: Arc<UdpSocket>,
    udp: UdpSocketState,
    endpoint: Endpoint,
    /// By handle; an empty slot is a handle that is free.
    lines: Vec<Option<Line>>,
    desk: Desk,
    admission: Admission,
    /// What is accepted of clients; a client's handshake has its own.
    accepted: Option<Secret>,
    ids: Ids,
    /// Lines with something to do, each once.
    busy: VecDeque<ConnectionHandle>,
    /// When lines want to be looked at; entries that moved are left in and checked when due.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When handshakes that were accepted are given up, the first first. Most are over by then.
    stalls: VecDeque<(Instant, ConnectionId)>,
    /// What the kernel had no room for.
    unsent: Option<(Transmit, Vec<u8>)>,
    received: Vec<u8>,
    send_buffer: Vec<u8>,
}

/// What the ports of a leader have in common.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) secret: Secret,
    pub(super) own: OwnId,
    pub(super) admission: Admission,
}

/// The numbers that a port gives its connections: every `step`th from `next` on, so that several
/// ports give none twice.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) next: u64,
    pub(super) step: u64,
}

/// What the lines of a port share.
#[derive(Default)]
struct Desk {
    handles: Numbered<ConnectionId, ConnectionHandle>,
    /// Connections that are over and never showed the secret, the first first. Most are gone.
    strangers: VecDeque<(ConnectionHandle, ConnectionId)>,
    events: VecDeque<Event>,
    /// Frames that came before a connection's end, until it is forgotten.
    last_words: Numbered<ConnectionId, FrameReader>,
}

/// One connection and its one stream.
struct Line {
    inner: Connection,
    id: ConnectionId,
    remote: SocketAddr,
    stream: Option<StreamId>,
    reader: FrameReader,
    /// The stream may have more than the reader was given.
    has_more: bool,
    /// Frames to be written, the first `written` bytes of which are.
    out: Vec<u8>,
    written: usize,
    is_busy: bool,
    /// What it counts as, and whether it is in its handshake.
    admitted: Admitted,
    /// Its end was reported: the driver is not interested any more.
    is_over: bool,
    /// The earliest of its entries among the timers.
    timer: Option<Instant>,
}

impl Port {
    /// A port where a leader listens.
    pub(super) fn listen(address: SocketAddr, entrance: &Entrance, ids: Ids) -> io::Result<Port> {
        let Entrance { secret, own, admission } = entrance;
        let mut config = EndpointConfig::new(secret.reset_key(own));
        let key = secret.connection_id_key(own);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        let server = Some(server_config(secret));
        let port = Port::new(bind(address)?, config, server, admission.clone(), 16)?;
        Ok(Port { accepted: Some(secret.clone()), ids, ..port })
    }

    /// From now on these secrets are accepted of clients, and the first is presented to them. The
    /// connection of a client with another secret ends.
    pub(super) fn accept_secret(&mut self, secret: &Secret) {
        self.endpoint.set_server_config(Some(Arc::new(server_config(secret))));
        self.accepted = Some(secret.clone());
        let refused = |line: &&Line| {
            // One in its handshake is judged at the end of that.
            !line.is_over && !line.admitted.is_handshaking() && !line.is_accepted_by(secret)
        };
        let refused: Vec<_> =
            self.lines.iter().flatten().filter(refused).map(|line| line.id).collect();
        for id in refused {
            self.close(id, CloseCode::Protocol, ACCEPTED_NO_LONGER);
        }
    }

    /// A port for one connection to a leader, which is begun.
    pub(super) fn connect(
        id: ConnectionId,
        remote: SocketAddr,
        secret: &Secret,
        silence: Duration,
    ) -> io::Result<Port> {
        let local = match remote {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Port::connect_from(local, id, remote, secret.client(), silence)
    }

    fn connect_from(
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
        let mut config = ClientConfig::new(handshake);
        config.transport_config(Arc::new(client_transport(silence)));
        let (handle, inner) = port
            .endpoint
            .connect(Instant::now(), config, remote, "tierlock")
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        port.insert(handle, inner, id, remote);
        Ok(port)
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
            lines: Vec::new(),
            desk: Desk::default(),
            admission,
            accepted: None,
            ids: Ids { next: 0, step: 1 },
            busy: VecDeque::new(),
            timers: BinaryHeap::new(),
            stalls: VecDeque::new(),
            unsent: None,
            received: vec![0; batch * MESSAGE_BYTES],
            send_buffer: Vec::new(),
        })
    }

    /// The socket to sleep on, which outlives the port if need be.
    pub(super) fn socket(&self) -> &Arc<UdpSocket> {
        &self.socket
    }

    /// Whether to sleep until the socket is writable, too.
    pub(super) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// When [`transmit`](Port::transmit) is next due without anything having happened.
    pub(super) fn timeout(&mut self) -> Option<Instant> {
        self.settle_first_timer();
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let stall = self.stalls.front().map(|(at, _)| *at);
        timer.into_iter().chain(stall).min()
    }

    /// Sees to it that the first entry is when its line wants to be looked at. Most have moved on
    /// by then: with every packet the time is put off until which its answer is waited for.
    fn settle_first_timer(&mut self) {
        while let Some(mut first) = self.timers.peek_mut() {
            let Reverse((at, index)) = *first;
            let line = self.lines[index].as_mut().filter(|line| line.timer == Some(at));
            let due = line.and_then(|line| {
                line.timer = line.inner.poll_timeout().map(|due| due.max(at));
                line.timer
            });
            match due {
                None => drop(PeekMut::pop(first)),
                Some(due) if due > at => *first = Reverse((due, index)),
                Some(_) => return,
            }
        }
    }

    /// Reads what the socket has, up to a batch; the rest is there at the next call. Whether there
    /// may be a rest.
    pub(super) fn receive(&mut self) -> bool {
        let mut received = mem::take(&mut self.received);
        let has_more = self.receive_into(&mut received);
        self.received = received;
        has_more
    }

    fn receive_into(&mut self, received: &mut [u8]) -> bool {
        let mut metas = [RecvMeta::default(); quinn_udp::BATCH_SIZE];
        let mut chunks = received.chunks_mut(MESSAGE_BYTES).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; quinn_udp::BATCH_SIZE] =
            std::array::from_fn(|_| chunks.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let used = slices.iter().take_while(|slice| !slice.is_empty()).count();
        let slices = &mut slices[..used];
        let count = match self.udp.recv((&*self.socket).into(), slices, &mut metas) {
            Ok(count) => count,
            Err(error) => {
                self.trouble(&error);
                return error.kind() != io::ErrorKind::WouldBlock;
            }
        };
        let now = Instant::now();
        for (meta, slice) in metas.iter().zip(slices.iter()).take(count) {
            let stride = meta.stride.max(1);
            for datagram in slice[..meta.len].chunks(stride) {
                self.handle(meta, BytesMut::from(datagram), now);
            }
        }
        // The lines take in what came before anything is sent.
        for index in 0..self.busy.len() {
            let handle = self.busy[index];
            self.listen_to(handle);
        }
        count == used
    }

    /// What the kernel heard from the network, which any host may have made it believe. It ends a
    /// client's attempts, which are tried again, and never a connection that stands.
    fn trouble(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock || self.socket.peer_addr().is_err() {
            return;
        }
        let Port { lines, desk, .. } = self;
        for line in lines.iter_mut().flatten().filter(|line| line.admitted.is_handshaking()) {
            let ended = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    Ended::NotThere(format!("nothing listens at {}", line.remote))
                }
                _ => Ended::Disconnected(format!("cannot reach {}: {error}", line.remote)),
            };
            line.end(ended, desk);
        }
    }

    fn handle(&mut self, meta: &RecvMeta, datagram: BytesMut, now: Instant) {
        let mut response = Vec::new();
        let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        let event = self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut response);
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit, &response),
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming, now),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(line) = self.lines.get_mut(handle.0).and_then(Option::as_mut) {
                    line.inner.handle_event(event);
                    self.mark_busy(handle);
                }
            }
        }
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let mut response = Vec::new();
        let remote = incoming.remote_address();
        let client = client_at(remote);
        let transmit = if !self.admission.admits(client) {
            Some(self.endpoint.refuse(incoming, &mut response))
        } else if !self.admission.trusts_addresses() && !incoming.remote_address_validated() {
            self.endpoint.retry(incoming, &mut response).ok()
        } else {
            match self.endpoint.accept(incoming, now, &mut response, None) {
                Ok((handle, inner)) => {
                    let id = ConnectionId(self.ids.next);
                    self.ids.next += self.ids.step;
                    self.insert(handle, inner, id, remote);
                    self.stalls.push_back((now + HANDSHAKE_LIMIT, id));
                    None
                }
                Err(error) => error.response,
            }
        };
        if let Some(transmit) = transmit {
            self.respond(&transmit, &response);
        }
    }

    /// Sends what needs no connection. If the kernel has no room it is lost, and asked for again.
    fn respond(&self, transmit: &Transmit, bytes: &[u8]) {
        let _ = self.udp.try_send((&*self.socket).into(), &datagrams(transmit, bytes));
    }

    fn insert(
        &mut self,
        handle: ConnectionHandle,
        inner: Connection,
        id: ConnectionId,
        remote: SocketAddr,
    ) {
        if self.lines.len() <= handle.0 {
            self.lines.resize_with(handle.0 + 1, || None);
        }
        self.desk.handles.insert(id, handle);
        let line = Line {
            inner,
            id,
            remote,
            stream: None,
            reader: FrameReader::new(),
            has_more: false,
            out: Vec::new(),
            written: 0,
            is_busy: false,
            admitted: self.admission.admit(client_at(remote)),
            is_over: false,
            timer: None,
        };
        assert!(self.lines[handle.0].replace(line).is_none(), "a handle is used by one connection");
        self.mark_busy(handle);
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.desk.events.pop_front()
    }

    /// The driver will not read any more what came before this connection's end.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.desk.last_words.remove(&id);
    }

    /// The next message of a connection, if a whole one is here. A malformed frame ends the
    /// connection, and no other.
    pub(super) fn read<M: Message>(&mut self, id: ConnectionId) -> Option<M> {
        loop {
            let received = match self.line_mut(id) {
                Some(line) => line.reader.next::<M>(),
                None => self.desk.last_words.get_mut(&id)?.next::<M>(),
            };
            match received {
                Ok(None) => {
                    self.line_mut(id).filter(|line| line.has_more)?.take_in(READ_AHEAD);
                    // The peer is told that it may go on.
                    let handle = self.desk.handles[&id];
                    self.mark_busy(handle);
                }
                Ok(Some(Received::Message(message))) => return Some(message),
                Ok(Some(Received::Unknown(unknown))) => {
                    if let Some(answer) = M::not_understood(unknown) {
                        self.write(id, &answer);
                    }
                }
                Err(error) => {
                    self.close(id, CloseCode::Protocol, &error.to_string());
                    return None;
                }
            }
        }
    }

    /// How much of what was written waits for its peer to read.
    pub(super) fn unsent(&self, id: ConnectionId) -> usize {
        let handle = self.desk.handles.get(&id);
        let line = handle.and_then(|handle| self.lines[handle.0].as_ref());
        line.map_or(0, |line| line.out.len() - line.written)
    }

    /// Queues a message; the next [`transmit`](Port::transmit) sends it with all others that are
    /// ready. Nothing happens if the connection is over.
    pub(super) fn write<M: Message>(&mut self, id: ConnectionId, message: &M) {
        let Some(&handle) = self.desk.handles.get(&id) else { return };
        let Some(line) = self.lines[handle.0].as_mut() else { return };
        if let Err(error) = wire::encode_frame(message, &mut line.out) {
            self.close(id, CloseCode::Protocol, &error.to_string());
            return;
        }
        if line.out.len() - line.written > UNSENT_BYTES_MAX {
            self.close(id, CloseCode::Slow, "what it was sent was not read");
            return;
        }
        self.mark_busy(handle);
    }

    /// Sends what was written and closes the connection; its end is reported.
    pub(super) fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        let Some(&handle) = self.desk.handles.get(&id) else { return };
        let now = Instant::now();
        if code != CloseCode::Slow {
            self.serve(handle, now);
        }
        let Port { lines, desk, .. } = self;
        let Some(line) = lines[handle.0].as_mut() else { return };
        line.close(code, reason, now, desk);
        self.mark_busy(handle);
    }

    /// Closes every connection.
    pub(super) fn close_all(&mut self, code: CloseCode, reason: &str) {
        let ids: Vec<_> = self.desk.handles.keys().copied().collect();
        for id in ids {
            self.close(id, code, reason);
        }
    }

    /// Sends everything that is ready, as far as the kernel has room.
    pub(super) fn transmit(&mut self) {
        let now = Instant::now();
        self.end_stalled(now);
        self.forget_strangers();
        if let Some((transmit, bytes)) = self.unsent.take()
            && !self.send(transmit, bytes)
        {
            return;
        }
        while let Some(Reverse((at, index))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            if let Some(line) = self.lines[index].as_mut()
                && line.timer == Some(at)
            {
                line.timer = None;
                self.mark_busy(ConnectionHandle(index));
            }
        }
        while self.unsent.is_none()
            && let Some(handle) = self.busy.pop_front()
        {
            if let Some(line) = self.lines[handle.0].as_mut() {
                line.is_busy = false;
                self.serve(handle, now);
            }
        }
    }

    /// Gives up the handshakes that took too long.
    fn end_stalled(&mut self, now: Instant) {
        while let Some((_, id)) = self.stalls.front().copied().filter(|(at, _)| *at <= now) {
            self.stalls.pop_front();
            if self.line_mut(id).is_some_and(|line| line.admitted.is_handshaking()) {
                self.close(id, CloseCode::Slow, "the handshake took too long");
            }
        }
    }

    /// Gives up the memory of strangers that were shown out, but for the last.
    fn forget_strangers(&mut self) {
        while self.desk.strangers.len() > STRANGERS_MAX
            && let Some((handle, id)) = self.desk.strangers.pop_front()
        {
            let slot = &mut self.lines[handle.0];
            if slot.as_ref().is_some_and(|line| line.id == id) {
                *slot = None;
                let _ = self.endpoint.handle_event(handle, EndpointEvent::drained());
            }
        }
    }

    /// Everything one line has to do: timers, what came, what is to be written and sent.
    fn serve(&mut self, handle: ConnectionHandle, now: Instant) {
        if let Some(line) = self.lines[handle.0].as_mut()
            && line.inner.poll_timeout().is_some_and(|at| at <= now)
        {
            line.inner.handle_timeout(now);
        }
        self.listen_to(handle);
        let Some(line) = self.lines[handle.0].as_mut() else { return };
        line.write_out();
        loop {
            let Some(line) = self.lines[handle.0].as_mut() else { return };
            let mut buffer = mem::take(&mut self.send_buffer);
            buffer.clear();
            let segments = self.udp.max_gso_segments().min(SEGMENTS_MAX);
            match line.inner.poll_transmit(now, segments, &mut buffer) {
                None => {
                    self.send_buffer = buffer;
                    break;
                }
                Some(transmit) => {
                    if !self.send(transmit, buffer) {
                        self.mark_busy(handle);
                        break;
                    }
                }
            }
        }
        // Sending may have brought new events, the line's end among them.
        self.listen_to(handle);
        let Some(line) = self.lines[handle.0].as_mut() else { return };
        if let Some(at) = line.inner.poll_timeout()
            && line.timer.is_none_or(|timer| at < timer)
        {
            line.timer = Some(at);
            self.timers.push(Reverse((at, handle.0)));
        }
    }

    /// Takes the events of one line, and the bytes of its stream.
    fn listen_to(&mut self, handle: ConnectionHandle) {
        let Port { lines, endpoint, desk, accepted, .. } = self;
        let slot = &mut lines[handle.0];
        let Some(line) = slot.as_mut() else { return };
        let mut is_drained = false;
        while let Some(event) = line.inner.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(event) = endpoint.handle_event(handle, event) {
                line.inner.handle_event(event);
            }
        }
        while let Some(event) = line.inner.poll() {
            match event {
                // What the driver is not interested in any more was counted when it ended.
                _ if line.is_over => {}
                quinn_proto::Event::Connected => {
                    line.admitted.end_handshake();
                    if let Some(secret) = accepted
                        && !line.is_accepted_by(secret)
                    {
                        // It was taken out of the file while the handshake was under way.
                        line.close(CloseCode::Protocol, ACCEPTED_NO_LONGER, Instant::now(), desk);
                        continue;
                    }
                    if line.inner.side().is_client() {
                        line.stream = line.inner.streams().open(Dir::Bi);
                    }
                    desk.events.push_back(Event::Connected(line.id, line.admitted.client()));
                }
                quinn_proto::Event::ConnectionLost { reason } => {
                    let ended = why(&reason, line.remote, line.admitted.is_handshaking());
                    line.end(ended, desk);
                }
                quinn_proto::Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    line.stream = line.inner.streams().accept(Dir::Bi).or(line.stream);
                    line.read_in(desk);
                }
                quinn_proto::Event::Stream(StreamEvent::Readable { .. }) => line.read_in(desk),
                _ => {}
            }
        }
        if is_drained {
            let ended = Ended::Disconnected("it was closed".into());
            line.end(ended, desk);
            *slot = None;
        }
    }

    /// Whether it was sent, or need not be.
    fn send(&mut self, transmit: Transmit, bytes: Vec<u8>) -> bool {
        let mut result = self.udp.try_send((&*self.socket).into(), &datagrams(&transmit, &bytes));
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // That was the fate of an earlier one; this one was not looked at.
            self.trouble(&io::ErrorKind::ConnectionRefused.into());
            result = self.udp.try_send((&*self.socket).into(), &datagrams(&transmit, &bytes));
        }
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.unsent = Some((transmit, bytes));
                false
            }
            // Anything else is as if the network had lost it, which QUIC can bear.
            _ => {
                self.send_buffer = bytes;
                true
            }
        }
    }

    fn mark_busy(&mut self, handle: ConnectionHandle) {
        if let Some(line) = self.lines[handle.0].as_mut()
            && !mem::replace(&mut line.is_busy, true)
        {
            self.busy.push_back(handle);
        }
    }

    fn line_mut(&mut self, id: ConnectionId) -> Option<&mut Line> {
        let handle = self.desk.handles.get(&id)?;
        self.lines[handle.0].as_mut()
    }
}

impl Line {
    /// Whether its peer has proved to have one of these secrets.
    fn is_accepted_by(&self, secret: &Secret) -> bool {
        let identity = self.inner.crypto_session().peer_identity();
        let keys =
            identity.and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
        keys.is_some_and(|keys| keys.first().is_some_and(|key| secret.accepts(key)))
    }

    fn close(&mut self, code: CloseCode, reason: &str, now: Instant, desk: &mut Desk) {
        let told = Bytes::copy_from_slice(reason.as_bytes());
        self.inner.close(now, VarInt::from_u32(code as u32), told);
        self.end(Ended::Disconnected(reason.to_owned()), desk);
    }

    /// Reports its end, once.
    fn end(&mut self, ended: Ended, desk: &mut Desk) {
        if mem::replace(&mut self.is_over, true) {
            return;
        }
        let is_stranger = self.admitted.end_handshake();
        // Nothing of it goes out any more, and QUIC goes on with the connection for a while.
        (self.out, self.written) = (Vec::new(), 0);
        if self.take_in(usize::MAX) {
            desk.events.push_back(Event::Readable(self.id));
        }
        let handle = desk.handles.remove(&self.id);
        if is_stranger {
            desk.strangers.extend(handle.map(|handle| (handle, self.id)));
        }
        desk.last_words.insert(self.id, mem::take(&mut self.reader));
        desk.events.push_back(Event::Ended(self.id, ended));
    }

    /// Moves what the stream has to the frame reader, and says so.
    fn read_in(&mut self, desk: &mut Desk) {
        if self.take_in(READ_AHEAD) && !self.is_over {
            desk.events.push_back(Event::Readable(self.id));
        }
    }

    /// Moves what the stream has to the frame reader, until that has so much; whether there was
    /// anything.
    fn take_in(&mut self, limit: usize) -> bool {
        let Some(id) = self.stream else { return false };
        self.has_more = false;
        let mut stream = self.inner.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return false };
        let mut any = false;
        loop {
            let room = limit.saturating_sub(self.reader.buffered());
            if room == 0 {
                self.has_more = true;
                break;
            }
            let Ok(Some(chunk)) = chunks.next(room) else { break };
            self.reader.extend(&chunk.bytes);
            any = true;
        }
        let _ = chunks.finalize();
        any
    }

    /// Moves frames to the stream, as far as it has room; it is asked again when it has more.
    fn write_out(&mut self) {
        let Some(id) = self.stream else { return };
        while self.written < self.out.len() {
            match self.inner.send_stream(id).write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(WriteError::Blocked) => break,
                // The stream is closed: so is the connection, soon.
                Err(_) => self.written = self.out.len(),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(UNSENT_BYTES_KEPT);
            self.written = 0;
        } else if self.written > UNSENT_BYTES_KEPT.max(self.out.len() / 2) {
            self.out.drain(..mem::take(&mut self.written));
        }
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

fn datagrams<'a>(transmit: &Transmit, bytes: &'a [u8]) -> quinn_udp::Transmit<'a> {
    quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents: &bytes[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}

fn server_config(secret: &Secret) -> ServerConfig {
    let mut server = ServerConfig::new(secret.server(), secret.token_key());
    server.transport_config(Arc::new(server_transport()));
    server.max_incoming(HANDSHAKES_MAX);
    server.incoming_buffer_size(64 << 10);
    server.incoming_buffer_size_total(16 << 20);
    server
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(RECEIVE_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
    config
}

/// A leader judges silence by its sessions' time to live. This is how long it keeps the memory of
/// a connection of a client that is gone; the client's own, shorter limit counts where there is one.
fn server_transport() -> TransportConfig {
    let mut config = transport();
    config
        .max_concurrent_bidi_streams(1_u32.into())
        .stream_receive_window(LEADER_RECEIVE_WINDOW.into())
        .receive_window(LEADER_RECEIVE_WINDOW.into())
        .send_window(LEADER_SEND_WINDOW)
        .crypto_buffer_size(LEADER_CRYPTO_BYTES)
        .max_idle_timeout(Some(VarInt::from_u32(30_000).into()));
    config
}

/// A client gives a connection up after `silence` without a sign of life, and asks for three in
/// that time: a dead path is noticed while there is time to find another.
fn client_transport(silence: Duration) -> TransportConfig {
    let mut config = transport();
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    config
        .max_concurrent_bidi_streams(0_u32.into())
        .max_idle_timeout(Some(VarInt::from_u32(millis).into()))
        .keep_alive_interval(Some(silence / 3));
    config
}

/// An end in words, and whether trying again may help.
///
/// What comes before the handshake's keys are agreed on can be forged by anyone on the path: a
/// Version Negotiation, a close. It ends an attempt, which is made again, and is never believed to
/// be the leader's last word. That a peer has another secret the handshake itself proves, or
/// the leader says it under the handshake's keys.
fn why(reason: &ConnectionError, remote: SocketAddr, is_handshaking: bool) -> Ended {
    const CRYPTO: std::ops::Range<u64> = 0x100..0x200;
    const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
    const CONNECTION_REFUSED: u64 = 0x2;
    let code = match reason {
        ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    };
    let is_forgeable = is_handshaking && matches!(reason, ConnectionError::ConnectionClosed(_));
    match (code, reason) {
        (Some(NO_APPLICATION_PROTOCOL), _) | (_, ConnectionError::VersionMismatch) => {
            Ended::Disconnected(format!(
                "what answers at {remote} is no tierlock leader of this version"
            ))
        }
        (Some(CONNECTION_REFUSED), _) => Ended::Disconnected(format!(
            "the leader at {remote} has no room for another connection from this address; close \
             managers that are not needed, or start it with a larger --sessions-max"
        )),
        (Some(code), _) if CRYPTO.contains(&code) && !is_forgeable => Ended::Refused(format!(
            "the leader at {remote} has another secret; both sides need the same secret file"
        )),
        (_, ConnectionError::Reset) => {
            Ended::Disconnected(format!("the leader at {remote} was restarted"))
        }
        (_, ConnectionError::TimedOut) => Ended::Disconnected(format!("no answer from {remote}")),
        (_, reason) => Ended::Disconnected(format!("the connection to {remote} ended: {reason}")),
    }
}

/// Why a connection ends when its secret was taken out of the leader's file.
const ACCEPTED_NO_LONGER: &str = "the leader does not accept this secret any more";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        ClusterId,
        wire::{ClientMessage, LeaderMessage},
    };

    const SILENCE: Duration = Duration::from_secs(5);

    fn secret() -> Secret {
        let directory = tempfile::tempdir().unwrap();
        Secret::create(directory.path().join("key")).unwrap()
    }

    const IDS: Ids = Ids { next: 0, step: 1 };

    fn entrance(secret: &Secret, admission: Admission) -> Entrance {
        Entrance { secret: secret.clone(), own: OwnId::random(), admission }
    }

    /// A message of a leader that is as long as the test wants.
    fn not_leader(try_next: Option<String>) -> LeaderMessage {
        LeaderMessage::NotLeader { try_next, cluster: ClusterId(1), epoch: None }
    }

    fn listen(secret: &Secret) -> (Port, SocketAddr) {
        listen_with(secret, Admission::new(1_000, HANDSHAKES_MAX))
    }

    fn listen_with(secret: &Secret, admission: Admission) -> (Port, SocketAddr) {
        let any = "127.0.0.1:0".parse().unwrap();
        let port = Port::listen(any, &entrance(secret, admission), IDS).unwrap();
        let address = port.socket().local_addr().unwrap();
        (port, address)
    }

    /// So many connections of another client, in their handshakes.
    fn others(leader: &Port, count: usize) -> Vec<Admitted> {
        let other = client_at("192.0.2.1:7420".parse().unwrap());
        (0..count).map(|_| leader.admission.admit(other)).collect()
    }

    fn handshakes(port: &Port) -> usize {
        port.admission.taken().1
    }

    fn connect(number: u64, address: SocketAddr, secret: &Secret) -> Port {
        Port::connect(ConnectionId(number), address, secret, SILENCE).unwrap()
    }

    /// Drives ports in turn until `done` says so of an event, which it is shown with its port.
    fn drive(ports: &mut [&mut Port], done: impl FnMut(usize, Event, &mut Port) -> bool) {
        drive_over(|| {}, ports, done);
    }

    /// The same over a path that carries what is between them.
    fn drive_over(
        mut carry: impl FnMut(),
        ports: &mut [&mut Port],
        mut done: impl FnMut(usize, Event, &mut Port) -> bool,
    ) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) {
            carry();
            for (index, port) in ports.iter_mut().enumerate() {
                port.receive();
                while let Some(event) = port.poll_event() {
                    if done(index, event, port) {
                        return;
                    }
                }
                port.transmit();
            }
            std::thread::yield_now();
        }
        panic!("it did not happen in 30 s");
    }

    fn renew(number: u64) -> ClientMessage {
        ClientMessage::Renew { sent_at: crate::time::Time::from_nanos(number) }
    }

    #[test]
    fn frames_go_both_ways_between_peers_that_share_a_secret() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let mut received = Vec::new();
        drive(&mut [&mut leader, &mut client], |index, event, port| match (index, event) {
            (1, Event::Connected(id, _)) => {
                (0..1000).for_each(|number| port.write(id, &renew(number)));
                false
            }
            (0, Event::Readable(id)) => {
                received.extend(std::iter::from_fn(|| port.read::<ClientMessage>(id)));
                if received.len() == 1000 {
                    port.write(id, &not_leader(None));
                }
                false
            }
            (1, Event::Readable(id)) => {
                let answer = port.read::<LeaderMessage>(id);
                assert_eq!(answer, Some(not_leader(None)));
                true
            }
            (_, Event::Ended(_, ended)) => panic!("{ended:?}"),
            _ => false,
        });
        assert!(received.into_iter().eq((0..1000).map(renew)));
    }

    #[test]
    fn a_time_that_every_packet_puts_off_ends_no_sleep_early() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let (mut asked, mut put_off) = (0, 0);
        drive(&mut [&mut leader, &mut client], |index, event, port| match (index, event) {
            (1, Event::Connected(id, _) | Event::Readable(id)) => {
                while port.read::<LeaderMessage>(id).is_some() {}
                asked += 1;
                port.write(id, &renew(asked));
                port.transmit();
                let first = port.timers.peek().map(|Reverse((at, _))| *at);
                let timeout = port.timeout();
                let line = port.line_mut(id).expect("it is connected");
                assert_eq!(timeout, line.inner.poll_timeout());
                put_off += u64::from(first < timeout);
                asked == 1000
            }
            (0, Event::Readable(id)) => {
                while port.read::<ClientMessage>(id).is_some() {
                    port.write(id, &not_leader(None));
                }
                false
            }
            (_, Event::Ended(_, ended)) => panic!("{ended:?}"),
            _ => false,
        });
        assert!(put_off > 100, "{put_off} of {asked}");
    }

    /// How much of a MiB the connection's stream takes before anything of it is acknowledged.
    fn taken_at_once(port: &mut Port, id: ConnectionId) -> Option<usize> {
        let line = port.line_mut(id).unwrap();
        let stream = line.stream.unwrap();
        line.inner.send_stream(stream).write(&[0; 1 << 20]).ok()
    }

    #[test]
    fn a_client_may_send_a_leader_no_more_than_a_window_ahead() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let mut taken = None;
        drive(&mut [&mut leader, &mut client], |index, event, port| {
            if let (1, Event::Connected(id, _)) = (index, event) {
                taken = taken_at_once(port, id);
            }
            taken.is_some()
        });
        assert_eq!(taken, Some(LEADER_RECEIVE_WINDOW as usize));
    }

    #[test]
    fn a_lost_first_packet_is_sent_again_soon() {
        let secret = secret();
        let (leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        client.transmit();
        // No leader reads it. The client itself says when it tries again.
        let again = client.timeout().unwrap();
        assert!(again <= Instant::now() + 3 * INITIAL_RTT);
        drop(leader);
    }

    #[test]
    fn no_peer_with_another_secret_gets_past_the_handshake() {
        let (mut leader, address) = listen(&secret());
        let mut client = connect(1, address, &secret());
        drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
            (_, Event::Connected(..)) => panic!("the handshake was passed"),
            (1, Event::Ended(_, Ended::Refused(text))) => {
                assert!(text.contains("another secret"), "{text}");
                true
            }
            (1, Event::Ended(_, other)) => panic!("{other:?}"),
            _ => false,
        });
        assert!(leader.desk.handles.len() <= 1);
    }

    #[test]
    fn a_client_that_believes_any_leader_still_has_to_prove_itself() {
        let (secret, other) = (secret(), secret());
        let (mut leader, address) = listen(&secret);
        let handshake = other.client_that_trusts(&secret);
        let id = ConnectionId(1);
        let here = Ipv4Addr::UNSPECIFIED.into();
        let mut client = Port::connect_from(here, id, address, handshake, SILENCE).unwrap();
        drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
            (0, Event::Connected(..) | Event::Readable(_)) => panic!("a stranger was let in"),
            (1, Event::Ended(_, ended)) => {
                assert!(matches!(ended, Ended::Refused(_)), "{ended:?}");
                true
            }
            _ => false,
        });
    }

    #[test]
    fn where_nothing_listens_an_attempt_ends_at_once() {
        let secret = secret();
        let (leader, address) = listen(&secret);
        drop(leader);
        let mut client = connect(1, address, &secret);
        drive(&mut [&mut client], |_, event, _| match event {
            Event::Ended(_, Ended::NotThere(text)) => {
                assert!(text.contains("nothing listens"), "{text}");
                true
            }
            other => panic!("{other:?}"),
        });
    }

    #[test]
    fn a_malformed_frame_ends_its_connection_and_no_other() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut good = connect(1, address, &secret);
        let mut bad = connect(2, address, &secret);
        let (mut bad_ended, mut good_frames) = (false, 0);
        let mut ports = [&mut leader, &mut good, &mut bad];
        drive(&mut ports, |index, event, port| {
            match (index, event) {
                (1, Event::Connected(id, _)) => port.write(id, &renew(1)),
                (2, Event::Connected(id, _)) => {
                    // A frame that says it is longer than any may be.
                    let line = port.line_mut(id).unwrap();
                    line.out.extend_from_slice(&u32::MAX.to_le_bytes());
                    port.write(id, &renew(2));
                }
                (0, Event::Readable(id)) => {
                    while let Some(message) = port.read::<ClientMessage>(id) {
                        assert_eq!(message, renew(1));
                        good_frames += 1;
                        port.write(id, &not_leader(None));
                    }
                }
                (1, Event::Readable(id)) => {
                    while port.read::<LeaderMessage>(id).is_some() {}
                    if !bad_ended || good_frames < 10 {
                        port.write(id, &renew(1));
                    }
                }
                (2, Event::Ended(_, Ended::Disconnected(text))) => {
                    assert!(text.contains("65536"), "{text}");
                    bad_ended = true;
                }
                (1, Event::Ended(_, ended)) => panic!("{ended:?}"),
                _ => {}
            }
            bad_ended && good_frames >= 10
        });
    }

    // With quinn's defaults a client notices after 30 s.
    #[test]
    fn a_client_notices_a_restarted_leader_by_its_next_frame() {
        let secret = secret();
        let entrance = entrance(&secret, Admission::new(1_000, HANDSHAKES_MAX));
        let mut leader = Port::listen("127.0.0.1:0".parse().unwrap(), &entrance, IDS).unwrap();
        let address = leader.socket().local_addr().unwrap();
        let mut client = connect(1, address, &secret);
        drive(&mut [&mut leader, &mut client], |index, event, _| {
            matches!((index, event), (1, Event::Connected(..)))
        });
        drive(&mut [&mut leader, &mut client], |index, event, _| {
            matches!((index, event), (0, Event::Connected(..)))
        });
        drop(leader);
        let mut leader = Port::listen(address, &entrance, IDS).unwrap();
        client.write(ConnectionId(1), &renew(1));
        drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
            (1, Event::Ended(_, Ended::Disconnected(text))) => {
                assert!(text.contains("was restarted"), "{text}");
                true
            }
            _ => false,
        });
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let mut line = None;
        drive(&mut [&mut leader, &mut client], |index, event, _| {
            if let (0, Event::Connected(id, _)) = (index, event) {
                line = Some(id);
            }
            line.is_some()
        });
        let line = line.unwrap();
        let long = not_leader(Some("x".repeat(60_000)));
        for _ in 0..UNSENT_BYTES_MAX / 60_000 + 2 {
            leader.write(line, &long);
        }
        let end = std::iter::from_fn(|| leader.poll_event()).last();
        assert!(matches!(end, Some(Event::Ended(id, _)) if id == line), "{end:?}");
        // QUIC has yet to close it, and what it was not sent is gone.
        let kept: Vec<_> = leader.lines.iter().flatten().map(|line| line.out.capacity()).collect();
        assert_eq!(kept, [0]);
    }

    #[test]
    fn what_was_said_before_a_close_is_read_before_the_end() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let mut words = 0;
        drive(&mut [&mut leader, &mut client], |index, event, port| {
            match (index, event) {
                (1, Event::Connected(id, _)) => port.write(id, &renew(1)),
                (0, Event::Readable(id)) => {
                    port.write(id, &not_leader(None));
                    port.close(id, CloseCode::Shutdown, "the leader was stopped");
                }
                (1, Event::Readable(id)) => {
                    words += std::iter::from_fn(|| port.read::<LeaderMessage>(id)).count();
                }
                (1, Event::Ended(..)) => {
                    assert_eq!(words, 1);
                    return true;
                }
                _ => {}
            }
            false
        });
    }

    #[test]
    fn what_was_said_before_a_close_is_read_behind_a_kind_that_is_not_known() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let mut said = Vec::new();
        drive(&mut [&mut leader, &mut client], |index, event, port| {
            match (index, event) {
                (1, Event::Connected(id, _)) => {
                    let handle = port.desk.handles[&id];
                    let line = port.lines[handle.0].as_mut().unwrap();
                    // The length, kind 200, request 7.
                    line.out.extend_from_slice(&[2, 0, 0, 0, 200, 7]);
                    port.write(id, &renew(1));
                    port.close(id, CloseCode::Shutdown, "it has said all");
                }
                (0, Event::Ended(id, _)) => {
                    said.extend(std::iter::from_fn(|| port.read::<ClientMessage>(id)));
                    return true;
                }
                _ => {}
            }
            false
        });
        assert_eq!(said, [renew(1)]);
    }

    #[test]
    fn a_handshake_that_succeeds_after_it_was_given_up_is_counted_out_once() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        // As if an earlier attempt had found no leader there.
        client.trouble(&io::ErrorKind::ConnectionRefused.into());
        assert_eq!(handshakes(&client), 0);
        drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
            (0, Event::Connected(..)) => true,
            (1, Event::Connected(..)) => panic!("it was given up"),
            _ => false,
        });
        // What the leader sent last may still be under way.
        while client.lines.iter().flatten().any(|line| line.inner.is_handshaking()) {
            client.receive();
            client.transmit();
            leader.receive();
            leader.transmit();
        }
        assert!(client.poll_event().is_none());
        assert_eq!((handshakes(&client), handshakes(&leader)), (0, 0));
    }

    /// The first frames of a stranger that never says more.
    fn knock(leader: &mut Port, address: SocketAddr) -> Port {
        let before = handshakes(leader);
        let mut stranger = connect(1, address, &secret());
        stranger.transmit();
        while handshakes(leader) == before {
            leader.receive();
        }
        stranger
    }

    #[test]
    fn strangers_that_stall_their_handshakes_are_shown_out() {
        let (mut leader, address) = listen(&secret());
        let strangers = [(); 10].map(|()| knock(&mut leader, address));
        let begin = Instant::now();
        assert_eq!(handshakes(&leader), strangers.len());
        assert!(leader.timeout().is_some_and(|at| at <= begin + HANDSHAKE_LIMIT));
        leader.end_stalled(begin + HANDSHAKE_LIMIT);
        assert_eq!(handshakes(&leader), 0);
        assert!(leader.stalls.is_empty());
        let ended = std::iter::from_fn(|| leader.poll_event());
        assert_eq!(ended.filter(|event| matches!(event, Event::Ended(..))).count(), 10);
    }

    #[test]
    fn strangers_that_were_shown_out_take_memory_for_the_last_of_them_only() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let strangers = [(); STRANGERS_MAX + 10].map(|()| knock(&mut leader, address));
        leader.end_stalled(Instant::now() + HANDSHAKE_LIMIT);
        assert_eq!(leader.endpoint.open_connections(), strangers.len());
        // They are told first.
        leader.transmit();
        leader.transmit();
        assert_eq!(leader.endpoint.open_connections(), STRANGERS_MAX);
        assert_eq!(leader.lines.iter().flatten().count(), STRANGERS_MAX);
        // The next client takes what they had.
        let mut client = connect(99, address, &secret);
        drive(&mut [&mut leader, &mut client], |index, event, _| {
            matches!((index, event), (0, Event::Connected(..)))
        });
    }

    #[test]
    fn a_client_beyond_the_connections_allowed_may_try_again() {
        let secret = secret();
        let (mut leader, address) = listen_with(&secret, Admission::new(1, HANDSHAKES_MAX));
        let mut first = connect(1, address, &secret);
        drive(&mut [&mut leader, &mut first], |index, event, _| {
            matches!((index, event), (0, Event::Connected(..)))
        });
        let mut second = connect(2, address, &secret);
        drive(&mut [&mut leader, &mut first, &mut second], |index, event, _| {
            match (index, event) {
                (2, Event::Ended(_, Ended::Disconnected(text))) => {
                    assert!(text.contains("--sessions-max"), "{text}");
                    true
                }
                (0 | 2, other) => panic!("{other:?}"),
                _ => false,
            }
        });
        assert_eq!(leader.endpoint.open_connections(), 1);
    }

    #[test]
    fn a_leader_has_no_more_on_its_way_to_a_client_than_a_window() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let mut client = connect(1, address, &secret);
        let mut taken = None;
        drive(&mut [&mut leader, &mut client], |index, event, port| {
            match (index, event) {
                (1, Event::Connected(id, _)) => port.write(id, &renew(1)),
                (0, Event::Readable(id)) => taken = taken_at_once(port, id),
                _ => {}
            }
            taken.is_some()
        });
        assert_eq!(taken, Some(LEADER_SEND_WINDOW as usize));
    }

    #[test]
    fn a_client_beyond_the_handshakes_allowed_may_try_again() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let _others = others(&leader, HANDSHAKES_MAX);
        let mut client = connect(1, address, &secret);
        drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
            (1, Event::Ended(_, Ended::Disconnected(_))) => true,
            (_, other) => panic!("{other:?}"),
        });
        assert_eq!(leader.endpoint.open_connections(), 0);
    }

    #[test]
    fn with_many_handshakes_under_way_an_address_is_proved_before_it_costs_anything() {
        let secret = secret();
        let (mut leader, address) = listen(&secret);
        let _others = others(&leader, 64);
        // A relay in between, which sees what goes by.
        let between = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut client = connect(1, between.local_addr().unwrap(), &secret);
        client.transmit();
        let mut bytes = [0; 1 << 16];
        let (length, _) = between.recv_from(&mut bytes).unwrap();
        between.send_to(&bytes[..length], address).unwrap();
        between.set_nonblocking(true).unwrap();
        let begin = Instant::now();
        let length = loop {
            leader.receive();
            leader.transmit();
            if let Ok((length, _)) = between.recv_from(&mut bytes) {
                break length;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "it says nothing");
        };
        // RFC 9000, 17.2.5: a Retry.
        assert_eq!(bytes[0] & 0xf0, 0xf0, "{:?}", &bytes[..length]);
        assert_eq!(leader.endpoint.open_connections(), 0);
        // A client that has one goes on.
        let mut client = connect(2, address, &secret);
        drive(&mut [&mut leader, &mut client], |index, event, _| {
            matches!((index, event), (0, Event::Connected(..)))
        });
    }

    /// A connection from this address, with a secret of its own or the leader's.
    fn connect_from(local: [u8; 4], number: u64, address: SocketAddr, secret: &Secret) -> Port {
        let (id, handshake) = (ConnectionId(number), secret.client());
        Port::connect_from(local.into(), id, address, handshake, SILENCE).unwrap()
    }

    #[test]
    fn one_client_that_stalls_its_handshakes_leaves_the_others_half_of_them() {
        const ATTACKER: [u8; 4] = [127, 0, 0, 2];
        const VICTIM: [u8; 4] = [127, 0, 0, 3];
        let secret = secret();
        // More than are let in without a proof of their address.
        let (mut leader, address) = listen_with(&secret, Admission::new(1_000, 160));
        let mut stalled = Vec::new();
        let refused = loop {
            let before = handshakes(&leader);
            let number = stalled.len() as u64;
            let mut attacker = connect_from(ATTACKER, number, address, &self::secret());
            let begin = Instant::now();
            // It proves its address if it must, and says nothing more.
            let ended = loop {
                attacker.transmit();
                leader.receive();
                // However slow this machine is, none is given up for the time that it took.
                leader.stalls.clear();
                if handshakes(&leader) > before {
                    break None;
                }
                leader.transmit();
                attacker.receive();
                if let Some(Event::Ended(_, ended)) = attacker.poll_event() {
                    break Some(ended);
                }
                assert!(begin.elapsed() < Duration::from_secs(30), "it is told nothing");
            };
            match ended {
                None => stalled.push(attacker),
                Some(ended) => break ended,
            }
        };
        assert!(matches!(refused, Ended::Disconnected(_)), "{refused:?}");
        assert_eq!((stalled.len(), handshakes(&leader)), (80, 80));
        let mut victim = connect_from(VICTIM, 1, address, &secret);
        drive(&mut [&mut leader, &mut victim], |index, event, _| match (index, event) {
            (0, Event::Connected(_, client)) => {
                assert_eq!(client, client_at((VICTIM, 0).into()));
                true
            }
            (1, Event::Ended(_, ended)) => panic!("{ended:?}"),
            _ => false,
        });
    }

    /// A place on the path between one client and a leader: it sees the connection ids of both,
    /// and sends in either's name.
    struct OnPath {
        socket: UdpSocket,
        leader: SocketAddr,
        client: Option<SocketAddr>,
        /// The ids that the client's packets and the leader's are sent to.
        to_leader: Option<[u8; 8]>,
        to_client: Option<[u8; 8]>,
    }

    impl OnPath {
        fn to(leader: SocketAddr) -> OnPath {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            OnPath { socket, leader, client: None, to_leader: None, to_client: None }
        }

        fn carry(&mut self) {
            let mut bytes = [0; 1 << 16];
            while let Ok((length, from)) = self.socket.recv_from(&mut bytes) {
                let is_from_leader = from == self.leader;
                let (id, to) = if is_from_leader {
                    (&mut self.to_client, self.client.expect("the client speaks first"))
                } else {
                    self.client = Some(from);
                    (&mut self.to_leader, self.leader)
                };
                if bytes[0] & 0x80 == 0 {
                    *id = bytes[1..9].try_into().ok();
                }
                self.socket.send_to(&bytes[..length], to).unwrap();
            }
        }

        fn to_the_client(&self, bytes: &[u8]) {
            self.socket.send_to(bytes, self.client.unwrap()).unwrap();
        }
    }

    /// A packet for this connection id that no peer can read.
    fn unreadable(id: [u8; 8]) -> Vec<u8> {
        [&[0x40], &id[..], &[0x5a; 100]].concat()
    }

    /// RFC 9000, 10.3: a packet that ends in the token of this id.
    fn reset(key: &ring::hmac::Key, id: [u8; 8]) -> Vec<u8> {
        [&[0x40; 40], &ring::hmac::sign(key, &id).as_ref()[..16]].concat()
    }

    /// So many frames go from the client to the leader and back.
    fn exchange(path: &mut OnPath, leader: &mut Port, client: &mut Port, count: u64) {
        client.write(ConnectionId(1), &renew(0));
        let mut answers = 0;
        drive_over(
            || path.carry(),
            &mut [leader, client],
            |index, event, port| {
                match (index, event) {
                    (0, Event::Readable(id)) => {
                        while port.read::<ClientMessage>(id).is_some() {
                            port.write(id, &not_leader(None));
                        }
                    }
                    (1, Event::Readable(id)) => {
                        while port.read::<LeaderMessage>(id).is_some() {
                            answers += 1;
                            port.write(id, &renew(answers));
                        }
                    }
                    (_, Event::Ended(_, ended)) => panic!("{ended:?}"),
                    _ => {}
                }
                answers >= count
            },
        );
    }

    #[test]
    fn forged_resets_end_no_connection() {
        let secret = secret();
        let entrance = entrance(&secret, Admission::new(1_000, HANDSHAKES_MAX));
        let mut leader = Port::listen("127.0.0.1:0".parse().unwrap(), &entrance, IDS).unwrap();
        let address = leader.socket().local_addr().unwrap();
        let (mut other_leader, other_address) = listen(&secret);
        let mut path = OnPath::to(address);
        let mut client = connect(1, path.socket.local_addr().unwrap(), &secret);
        exchange(&mut path, &mut leader, &mut client, 20);
        let [to_leader, to_client] = [path.to_leader, path.to_client].map(Option::unwrap);

        // With the secret anyone can be a leader: what such a one signs is believed by neither.
        let forged = secret.reset_key(&OwnId::random());
        for id in [to_leader, to_client] {
            path.to_the_client(&reset(&forged, id));
            path.socket.send_to(&reset(&forged, id), address).unwrap();
        }
        exchange(&mut path, &mut leader, &mut client, 20);

        // Neither signs for another what would end its connection, however it is asked.
        let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
        asking.set_nonblocking(true).unwrap();
        for (port, address, ids) in [
            (&mut other_leader, other_address, &[to_leader, to_client][..]),
            (&mut leader, address, &[to_client]),
        ] {
            for &id in ids {
                asking.send_to(&unreadable(id), address).unwrap();
                port.receive();
                port.transmit();
                let answer = asking.recv_from(&mut [0; 2_000]);
                assert!(answer.is_err(), "it signs for {id:?}");
            }
        }
        path.carry();
        path.to_the_client(&unreadable(to_leader));
        client.receive();
        let answer = path.socket.recv_from(&mut [0; 2_000]);
        assert!(answer.is_err(), "the client signs for its leader");
        exchange(&mut path, &mut leader, &mut client, 20);

        // The leader's own word is believed: so those were well made.
        path.to_the_client(&reset(&secret.reset_key(&entrance.own), to_leader));
        drive_over(
            || path.carry(),
            &mut [&mut client],
            |_, event, _| match event {
                Event::Ended(_, Ended::Disconnected(text)) => text.contains("was restarted"),
                Event::Ended(_, ended) => panic!("{ended:?}"),
                _ => false,
            },
        );
    }

    #[test]
    fn a_connection_ends_when_its_secret_is_accepted_no_longer_and_no_other_does() {
        let [old, new] = [[1; 32], [2; 32]];
        let both = Secret::from_secrets(&[old, new]);
        let [old, new] = [old, new].map(|bytes| Secret::from_secrets(&[bytes]));
        let (mut leader, address) = listen(&both);
        let mut of_old = connect(1, address, &old);
        // It presents the new one, and accepts the old one of a leader that still presents that.
        let turned = Secret::from_secrets(&[[2; 32], [1; 32]]);
        let mut of_new = connect(2, address, &turned);
        let mut connected = 0;
        drive(&mut [&mut leader, &mut of_old, &mut of_new], |index, event, _| {
            connected += usize::from(matches!((index, event), (0, Event::Connected(..))));
            connected == 2
        });
        // One is in the midst of its handshake.
        let mut late = connect(3, address, &old);
        late.transmit();
        while handshakes(&leader) == 0 {
            leader.receive();
        }
        leader.accept_secret(&new);
        let mut ended = 0;
        let mut ports = [&mut leader, &mut of_old, &mut of_new, &mut late];
        drive(&mut ports, |index, event, _| match (index, event) {
            (1 | 3, Event::Ended(_, Ended::Disconnected(text))) => {
                assert!(text.contains("does not accept this secret any more"), "{text}");
                ended += 1;
                ended == 2
            }
            (0, Event::Connected(..)) | (2, Event::Ended(..)) => panic!("{index}"),
            (_, Event::Ended(_, Ended::Refused(text))) => panic!("{text}"),
            _ => false,
        });
        // A client that comes now is judged by the new one, which is also presented.
        let mut stranger = connect(4, address, &old);
        let mut newcomer = connect(5, address, &new);
        let (mut is_out, mut is_in) = (false, false);
        let mut ports = [&mut leader, &mut of_new, &mut stranger, &mut newcomer];
        drive(&mut ports, |index, event, _| {
            match (index, event) {
                (2, Event::Ended(_, Ended::Refused(_))) => is_out = true,
                (3, Event::Connected(..)) => is_in = true,
                (1 | 3, Event::Ended(..)) => panic!("{index}"),
                _ => {}
            }
            is_out && is_in
        });
    }
}

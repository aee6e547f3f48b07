//! One UDP socket and the QUIC connections on it: frames in, frames out.
//!
//! It knows no message, starts no thread and never sleeps. The driver of a [`Port`] calls
//! [`receive`](Port::receive) when its socket is readable, takes the events, writes frames, calls
//! [`transmit`](Port::transmit), and sleeps until [`timeout`](Port::timeout). QUIC itself is
//! quinn-proto's; without an async runtime between it and the socket a round trip pays for no
//! task switch, and any thread that holds the port can carry its frames.

mod config;
mod connection;
mod endings;
mod handshakes;
mod opening;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, binary_heap::PeekMut},
    io::{self, IoSliceMut},
    mem,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointEvent, StreamEvent,
    Transmit,
};
use quinn_udp::{RecvMeta, UdpSocketState};

use crate::proto::{
    ClientId, ConnectionId,
    client::Ended,
    rights::ConnectedClient,
    wire::{self, FrameReader, Message, Received},
};

pub(in crate::host) use self::endings::TurnedAway;
use self::{
    config::server_config,
    connection::{PortConnection, PortShared},
    endings::{closes_for, why},
    handshakes::{HandshakeQueue, HandshakeStep},
};
use super::{
    acceptance::{Acceptance, Unaccepted},
    admission::{Admission, client_at},
    own_id::OwnId,
    tls::Dialect,
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
/// Handshakes a leader has under way at most; more are refused, to be tried again.
pub(in crate::host) const HANDSHAKES_MAX: usize = 1024;
/// How many times as much is read from the socket while handshakes wait: what stands behind their datagrams
/// there may be of connections that stand.
const READS_WHILE_WAITING: usize = 16;
/// A leader gives a handshake up that takes longer. A peer with the secret needs a round trip.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);
/// Connections that ended without having shown the secret, which a leader keeps for a while to say
/// so again, at most; of more the oldest are forgotten at once. How long that while is their
/// peers have a say in.
///
/// So peers without the secret take no more than `HANDSHAKES_MAX + UNFINISHED_MAX` connections,
/// however many they are and whatever they send. Each may have the connection's own state, one
/// handshake message of 64 KiB, and [`LEADER_CRYPTO_BYTES`] of handshake out of order at each of two
/// levels, which byte by byte with gaps between take some 150 KiB: below 400 KiB, together below
/// 420 MiB. There is no early data, and nothing else is read before they have shown it.
const UNFINISHED_MAX: usize = 32;
/// The kernel's buffers, as far as it allows: a herd that returns after a restart fits in.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// One receive buffer: the most that the kernel joins into one message.
const MESSAGE_BYTES: usize = 64 << 10;
/// Datagrams in one write to the kernel.
const SEGMENTS_MAX: usize = 10;

/// Why a connection was closed, as a number on the wire; the words go along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::host) enum CloseCode {
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
    /// Between members of a group: the peer is not what this one takes it for, or takes this one for
    /// another.
    OtherCluster = 6,
    /// The leader accepts the peer's credential no longer, or not for what the peer reports.
    Unaccepted = 7,
}

/// What happened on a port.
#[derive(Debug)]
pub(in crate::host) enum PortEvent {
    /// The handshake is over: the peer has the secret, or a credential. Its connection counts as this
    /// client's.
    Connected(ConnectionId, ConnectedClient),
    /// There are frames to [`read`](Port::read).
    Readable(ConnectionId),
    /// The connection, or the attempt to make it, is over.
    Ended(ConnectionId, Ended),
    /// An attempt of this client has ended before its handshake was over; said of a leader's port, as news
    /// for its operator. A host on the path can make it up.
    TurnedAway(ClientId, TurnedAway),
    /// A peer of a leader's port has proved what is not accepted, or not any more; news for its operator.
    Unaccepted(ConnectedClient, Unaccepted),
}

pub(in crate::host) struct Port {
    socket: Arc<UdpSocket>,
    udp: UdpSocketState,
    endpoint: Endpoint,
    /// By handle; an empty slot is a handle that is free.
    connections: Vec<Option<PortConnection>>,
    shared: PortShared,
    admission: Admission,
    /// What is accepted of clients; a client's handshake has its own.
    accepted: Option<Acceptance>,
    /// What peers may say that a connection is for.
    dialects: &'static [Dialect],
    /// The kernel has said that nothing listens at the other end.
    is_refused: bool,
    /// The last reading of the socket brought something.
    has_heard: bool,
    /// A leader's handshakes, which wait for their turn.
    waiting: HandshakeQueue,
    ids: Ids,
    /// Lines with something to do, each once.
    busy: VecDeque<ConnectionHandle>,
    /// When connections want to be looked at; entries that moved are left in and checked when due.
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
pub(in crate::host) struct Entrance {
    pub(in crate::host) accepted: Acceptance,
    pub(in crate::host) own: OwnId,
    pub(in crate::host) admission: Admission,
    /// What peers may say that a connection is for.
    pub(in crate::host) dialects: &'static [Dialect],
}

/// The numbers that a port gives its connections: every `step`th from `next` on, so that several
/// ports give none twice.
#[derive(Clone, Copy)]
pub(in crate::host) struct Ids {
    pub(in crate::host) next: u64,
    pub(in crate::host) step: u64,
}

impl Port {
    /// From now on this is accepted of clients, and the first of its secrets is presented to them. The
    /// connection of a client that is accepted no longer ends: asked again with the same, that of one
    /// whose credential has ended meanwhile.
    pub(in crate::host) fn accept_credentials(&mut self, accepted: impl Into<Acceptance>) {
        let accepted = accepted.into();
        if self.accepted.as_ref().is_none_or(|before| before.secret != accepted.secret) {
            let config = server_config(&accepted.secret, self.dialects);
            self.endpoint.set_server_config(Some(Arc::new(config)));
        }
        // One in its handshake is judged at the end of that.
        let judge = |connection: &PortConnection| {
            let credential = connection.credential.as_ref().filter(|_| !connection.is_over)?;
            let why = accepted.still_accepts(credential).err()?;
            Some((connection.id, connection.client(), why))
        };
        let refused: Vec<_> = self.connections.iter().flatten().filter_map(judge).collect();
        for (id, client, why) in refused {
            self.shared.events.push_back(PortEvent::Unaccepted(client, why));
            let (code, reason) = closes_for(why, Dialect::Locks);
            self.connection_mut(id).into_iter().for_each(PortConnection::silence);
            self.close(id, code, reason);
        }
        self.accepted = Some(accepted);
    }

    /// The socket to sleep on, which outlives the port if need be.
    pub(in crate::host) fn socket(&self) -> &Arc<UdpSocket> {
        &self.socket
    }

    /// Whether to sleep until the socket is writable, too.
    pub(in crate::host) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// When [`transmit`](Port::transmit) is next due without anything having happened.
    pub(in crate::host) fn timeout(&mut self) -> Option<Instant> {
        self.settle_first_timer();
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let stall = self.stalls.front().map(|(at, _)| *at);
        let waiting = (self.waiting.len() > 0).then(Instant::now);
        timer.into_iter().chain(stall).chain(waiting).min()
    }

    /// Sees to it that the first entry is when its connection wants to be looked at. Most have moved on
    /// by then: with every packet the time is put off until which its answer is waited for.
    fn settle_first_timer(&mut self) {
        while let Some(mut first) = self.timers.peek_mut() {
            let Reverse((at, index)) = *first;
            let connection =
                self.connections[index].as_mut().filter(|connection| connection.timer == Some(at));
            let due = connection.and_then(|connection| {
                connection.timer = connection.inner.poll_timeout().map(|due| due.max(at));
                connection.timer
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
    pub(in crate::host) fn receive(&mut self) -> bool {
        self.has_heard = false;
        let mut received = mem::take(&mut self.received);
        let mut has_more = self.receive_into(&mut received);
        for _ in 1..READS_WHILE_WAITING {
            if !has_more || self.waiting.len() == 0 {
                break;
            }
            has_more = self.receive_into(&mut received);
        }
        self.received = received;
        self.go_on_with_handshakes();
        has_more
    }

    /// Whether the last [`receive`](Port::receive) brought anything.
    pub(in crate::host) fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Whether something happened that is to be [taken](Port::poll_event): what was read brought it, or what
    /// the kernel said in its place.
    pub(in crate::host) fn has_news(&self) -> bool {
        self.has_heard || !self.shared.events.is_empty()
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
        self.has_heard |= count > 0;
        let now = Instant::now();
        for (meta, slice) in metas.iter().zip(slices.iter()).take(count) {
            let stride = meta.stride.max(1);
            for datagram in slice[..meta.len].chunks(stride) {
                self.handle(meta, BytesMut::from(datagram), now);
            }
        }
        // The connections take in what came before anything is sent.
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
        self.is_refused |= error.kind() == io::ErrorKind::ConnectionRefused;
        let Port { connections, shared, .. } = self;
        for connection in connections
            .iter_mut()
            .flatten()
            .filter(|connection| connection.admitted.is_handshaking())
        {
            let ended = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    Ended::NotThere(format!("nothing listens at {}", connection.remote))
                }
                _ => Ended::Disconnected(format!("cannot reach {}: {error}", connection.remote)),
            };
            connection.end(ended, shared);
        }
    }

    fn handle(&mut self, meta: &RecvMeta, datagram: BytesMut, now: Instant) {
        let mut response = Vec::new();
        let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        let event = self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut response);
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit, &response),
            Some(DatagramEvent::NewConnection(incoming)) => {
                let client = client_at(incoming.remote_address());
                self.postpone(client, HandshakeStep::Begin(Box::new(incoming)), now);
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let is_leader = self.accepted.is_some();
                if let Some(connection) =
                    self.connections.get_mut(handle.0).and_then(Option::as_mut)
                {
                    if is_leader && connection.admitted.is_handshaking() {
                        let (client, id) = (connection.admitted.client(), connection.id);
                        let step = HandshakeStep::Next(handle, id, Box::new(event));
                        return self.postpone(client, step, now);
                    }
                    connection.inner.handle_event(event);
                    self.mark_busy(handle);
                }
            }
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
        if self.connections.len() <= handle.0 {
            self.connections.resize_with(handle.0 + 1, || None);
        }
        self.shared.handles.insert(id, handle);
        let connection = PortConnection {
            inner,
            id,
            remote,
            stream: None,
            reader: FrameReader::new(),
            is_silenced: false,
            has_more: false,
            out: Vec::new(),
            written: 0,
            is_busy: false,
            dialect: Dialect::Locks,
            admitted: self.admission.admit(client_at(remote)),
            credential: None,
            is_over: false,
            timer: None,
        };
        assert!(
            self.connections[handle.0].replace(connection).is_none(),
            "a handle is used by one connection"
        );
        self.mark_busy(handle);
    }

    /// The next thing that happened.
    pub(in crate::host) fn poll_event(&mut self) -> Option<PortEvent> {
        self.shared.events.pop_front()
    }

    /// The next thing that happened on a connection of another member of the group.
    pub(in crate::host) fn poll_member_event(&mut self) -> Option<PortEvent> {
        self.shared.member_events.pop_front()
    }

    /// Whether the kernel has said, since this was asked last, that nothing listens at the other end.
    pub(in crate::host) fn take_refusal(&mut self) -> bool {
        mem::take(&mut self.is_refused)
    }

    /// The driver will not read any more what came before this connection's end.
    pub(in crate::host) fn forget(&mut self, id: ConnectionId) {
        self.shared.last_words.remove(&id);
    }

    /// The next message of a connection, if a whole one is here. A malformed frame ends the
    /// connection, and no other.
    pub(in crate::host) fn read<M: Message>(&mut self, id: ConnectionId) -> Option<M> {
        loop {
            let received = match self.connection_mut(id) {
                Some(connection) => connection.reader.next::<M>(),
                None => self.shared.last_words.get_mut(&id)?.next::<M>(),
            };
            match received {
                Ok(None) => {
                    self.connection_mut(id)
                        .filter(|connection| connection.has_more)?
                        .take_in(READ_AHEAD);
                    // The peer is told that it may go on.
                    let handle = self.shared.handles[&id];
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
    pub(in crate::host) fn unsent(&self, id: ConnectionId) -> usize {
        let handle = self.shared.handles.get(&id);
        let connection = handle.and_then(|handle| self.connections[handle.0].as_ref());
        connection.map_or(0, |connection| connection.out.len() - connection.written)
    }

    /// Queues a message; the next [`transmit`](Port::transmit) sends it with all others that are
    /// ready. Nothing happens if the connection is over.
    pub(in crate::host) fn write<M: Message>(&mut self, id: ConnectionId, message: &M) {
        let Some(&handle) = self.shared.handles.get(&id) else { return };
        let Some(connection) = self.connections[handle.0].as_mut() else { return };
        if let Err(error) = wire::encode_frame(message, &mut connection.out) {
            self.close(id, CloseCode::Protocol, &error.to_string());
            return;
        }
        if connection.out.len() - connection.written > UNSENT_BYTES_MAX {
            self.close(id, CloseCode::Slow, "what it was sent was not read");
            return;
        }
        self.mark_busy(handle);
    }

    /// Sends what was written and closes the connection; its end is reported.
    pub(in crate::host) fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        let Some(&handle) = self.shared.handles.get(&id) else { return };
        let now = Instant::now();
        if code != CloseCode::Slow {
            self.serve(handle, now);
        }
        let Port { connections, shared, .. } = self;
        let Some(connection) = connections[handle.0].as_mut() else { return };
        connection.close(code, reason, now, shared);
        self.mark_busy(handle);
    }

    /// Closes every connection.
    pub(in crate::host) fn close_all(&mut self, code: CloseCode, reason: &str) {
        self.close_those(|_| true, code, reason);
    }

    /// Closes every connection but those of members of the group.
    pub(in crate::host) fn close_clients(&mut self, code: CloseCode, reason: &str) {
        self.close_those(|connection| connection.dialect == Dialect::Locks, code, reason);
    }

    fn close_those(
        &mut self,
        are: impl Fn(&PortConnection) -> bool,
        code: CloseCode,
        reason: &str,
    ) {
        let handles = self.shared.handles.iter();
        let is = |handle: &ConnectionHandle| self.connections[handle.0].as_ref().is_some_and(&are);
        let ids: Vec<_> = handles.filter(|(_, handle)| is(handle)).map(|(id, _)| *id).collect();
        for id in ids {
            self.close(id, code, reason);
        }
    }

    /// Sends everything that is ready, as far as the kernel has room.
    pub(in crate::host) fn transmit(&mut self) {
        let now = Instant::now();
        self.end_stalled(now);
        self.forget_unfinished();
        if let Some((transmit, bytes)) = self.unsent.take()
            && !self.send(transmit, bytes)
        {
            return;
        }
        while let Some(Reverse((at, index))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            if let Some(connection) = self.connections[index].as_mut()
                && connection.timer == Some(at)
            {
                connection.timer = None;
                self.mark_busy(ConnectionHandle(index));
            }
        }
        while self.unsent.is_none()
            && let Some(handle) = self.busy.pop_front()
        {
            if let Some(connection) = self.connections[handle.0].as_mut() {
                connection.is_busy = false;
                self.serve(handle, now);
            }
        }
    }

    /// Gives up the handshakes that took too long.
    fn end_stalled(&mut self, now: Instant) {
        while let Some((_, id)) = self.stalls.front().copied().filter(|(at, _)| *at <= now) {
            self.stalls.pop_front();
            if self
                .connection_mut(id)
                .is_some_and(|connection| connection.admitted.is_handshaking())
            {
                self.close(id, CloseCode::Slow, "the handshake took too long");
            }
        }
    }

    /// Forgets connections that ended before their handshake did, but for the last of them.
    fn forget_unfinished(&mut self) {
        while self.shared.unfinished.len() > UNFINISHED_MAX
            && let Some((handle, id)) = self.shared.unfinished.pop_front()
        {
            let slot = &mut self.connections[handle.0];
            if slot.as_ref().is_some_and(|connection| connection.id == id) {
                *slot = None;
                let _ = self.endpoint.handle_event(handle, EndpointEvent::drained());
            }
        }
    }

    /// Everything one connection has to do: timers, what came, what is to be written and sent.
    fn serve(&mut self, handle: ConnectionHandle, now: Instant) {
        if let Some(connection) = self.connections[handle.0].as_mut()
            && connection.inner.poll_timeout().is_some_and(|at| at <= now)
        {
            connection.inner.handle_timeout(now);
        }
        self.listen_to(handle);
        let Some(connection) = self.connections[handle.0].as_mut() else { return };
        connection.write_out();
        loop {
            let Some(connection) = self.connections[handle.0].as_mut() else { return };
            let mut buffer = mem::take(&mut self.send_buffer);
            buffer.clear();
            let segments = self.udp.max_gso_segments().min(SEGMENTS_MAX);
            match connection.inner.poll_transmit(now, segments, &mut buffer) {
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
        // Sending may have brought new events, the connection's end among them.
        self.listen_to(handle);
        let Some(connection) = self.connections[handle.0].as_mut() else { return };
        if let Some(at) = connection.inner.poll_timeout()
            && connection.timer.is_none_or(|timer| at < timer)
        {
            connection.timer = Some(at);
            self.timers.push(Reverse((at, handle.0)));
        }
    }

    /// Takes the events of one connection, and the bytes of its stream.
    fn listen_to(&mut self, handle: ConnectionHandle) {
        let Port { connections, endpoint, shared, accepted, .. } = self;
        let slot = &mut connections[handle.0];
        let Some(connection) = slot.as_mut() else { return };
        let mut is_drained = false;
        while let Some(event) = connection.inner.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(event) = endpoint.handle_event(handle, event) {
                connection.inner.handle_event(event);
            }
        }
        while let Some(event) = connection.inner.poll() {
            match event {
                // What the driver is not interested in any more was counted when it ended.
                _ if connection.is_over => {}
                quinn_proto::Event::Connected => {
                    connection.admitted.end_handshake();
                    if let Some(accepted) = accepted
                        && let Err(unsettled) = connection.settle(accepted)
                    {
                        if let Some(why) = unsettled.why {
                            let client = connection.client();
                            shared.events.push_back(PortEvent::Unaccepted(client, why));
                        }
                        // No byte of it has been read.
                        let (code, reason) = unsettled.closes;
                        connection.close(code, reason, Instant::now(), shared);
                        continue;
                    }
                    if connection.inner.side().is_client() {
                        connection.stream = connection.inner.streams().open(Dir::Bi);
                    }
                    let client = connection.client();
                    connection.tell(PortEvent::Connected(connection.id, client), shared);
                }
                quinn_proto::Event::ConnectionLost { reason } => {
                    if connection.admitted.is_handshaking()
                        && !connection.inner.side().is_client()
                        && let Some(why) = TurnedAway::of(&reason)
                    {
                        let client = connection.admitted.client();
                        shared.events.push_back(PortEvent::TurnedAway(client, why));
                    }
                    let ended =
                        why(&reason, connection.remote, connection.admitted.is_handshaking());
                    connection.end(ended, shared);
                }
                quinn_proto::Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    connection.stream =
                        connection.inner.streams().accept(Dir::Bi).or(connection.stream);
                    connection.read_in(shared);
                }
                quinn_proto::Event::Stream(StreamEvent::Readable { .. }) => {
                    connection.read_in(shared)
                }
                _ => {}
            }
        }
        if is_drained {
            let ended = Ended::Disconnected("it was closed".into());
            connection.end(ended, shared);
            *slot = None;
        }
    }

    /// Whether it was sent, or need not be.
    fn send(&mut self, transmit: Transmit, bytes: Vec<u8>) -> bool {
        let send = || self.udp.try_send((&*self.socket).into(), &datagrams(&transmit, &bytes));
        let mut result = send();
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // That was the fate of an earlier one; this one was not looked at.
            result = send();
            self.trouble(&io::ErrorKind::ConnectionRefused.into());
        }
        if result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.unsent = Some((transmit, bytes));
            return false;
        }
        // Anything else is as if the network had lost it, which QUIC can bear.
        self.send_buffer = bytes;
        true
    }

    fn mark_busy(&mut self, handle: ConnectionHandle) {
        if let Some(connection) = self.connections[handle.0].as_mut()
            && !mem::replace(&mut connection.is_busy, true)
        {
            self.busy.push_back(handle);
        }
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut PortConnection> {
        let handle = self.shared.handles.get(&id)?;
        self.connections[handle.0].as_mut()
    }
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

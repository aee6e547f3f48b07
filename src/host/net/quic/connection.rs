//! One connection of a port and its one stream.

use std::{collections::VecDeque, mem, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionHandle, StreamId, VarInt, WriteError, crypto::rustls::HandshakeData,
};
use rustls::pki_types::CertificateDer;

use crate::{
    host::net::{
        acceptance::{Acceptance, Unaccepted},
        admission::{Admitted, client_at},
        credential::{AcceptedCredential, CredentialPurpose, bind_proof},
        tls::Dialect,
    },
    proto::{
        ConnectionId,
        client::Ended,
        numbered::Numbered,
        rights::{ConnectedClient, ProvedLabel},
        wire::FrameReader,
    },
};

use super::{
    CloseCode, PortEvent, READ_AHEAD, UNSENT_BYTES_KEPT,
    endings::{FOR_SOMETHING_ELSE, HAS_ITS_SHARE, closes_for},
};

/// What the connections of a port share.
#[derive(Default)]
pub(super) struct PortShared {
    pub(super) handles: Numbered<ConnectionId, ConnectionHandle>,
    /// Connections that are over and never showed the secret, the first first. Most are gone.
    pub(super) unfinished: VecDeque<(ConnectionHandle, ConnectionId)>,
    pub(super) events: VecDeque<PortEvent>,
    /// The same, of connections between members of a group.
    pub(super) member_events: VecDeque<PortEvent>,
    /// Frames that came before a connection's end, until it is forgotten.
    pub(super) last_words: Numbered<ConnectionId, FrameReader>,
}

/// One connection and its one stream.
pub(super) struct PortConnection {
    pub(super) inner: Connection,
    pub(super) id: ConnectionId,
    pub(super) remote: SocketAddr,
    pub(super) stream: Option<StreamId>,
    pub(super) reader: FrameReader,
    /// Nothing of it is read any more.
    pub(super) is_silenced: bool,
    /// The stream may have more than the reader was given.
    pub(super) has_more: bool,
    /// Frames to be written, the first `written` bytes of which are.
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    pub(super) is_busy: bool,
    /// What it is for.
    pub(super) dialect: Dialect,
    /// What it counts as, and whether it is in its handshake.
    pub(super) admitted: Admitted,
    /// What its peer has proved at the end of the handshake, to a leader.
    pub(super) credential: Option<AcceptedCredential>,
    /// Its end was reported: the driver is not interested any more.
    pub(super) is_over: bool,
    /// The earliest of its entries among the timers.
    pub(super) timer: Option<Instant>,
}

/// Why a connection is closed at the end of its handshake.
pub(super) struct Unsettled {
    pub(super) closes: (CloseCode, &'static str),
    /// What is to be told of it.
    pub(super) why: Option<Unaccepted>,
}

impl PortConnection {
    /// Takes from the end of the handshake what it is for, and what its peer has proved. Why it is to be
    /// closed, if its peer may not have it for that.
    pub(super) fn settle(&mut self, accepted: &Acceptance) -> Result<(), Unsettled> {
        let data = self.inner.crypto_session().handshake_data();
        let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
        let said = data.and_then(|data| data.protocol);
        let is_said = |dialect: &Dialect| said.as_deref() == Some(dialect.name());
        let Some(said) = Dialect::ALL.into_iter().find(is_said) else {
            return Err(Unsettled { closes: (CloseCode::Protocol, FOR_SOMETHING_ELSE), why: None });
        };
        self.dialect = said;
        let identity = self.inner.crypto_session().peer_identity();
        let keys =
            identity.and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
        let presented = keys.as_deref().and_then(|keys| keys.first());
        let judged =
            presented.map_or(Err(Unaccepted::OtherSecret), |key| accepted.judge(key, said));
        let credential = match judged {
            Ok(credential) => credential,
            Err(why) => return Err(Unsettled { closes: closes_for(why, said), why: Some(why) }),
        };
        let is_issued = credential.terms.label.is_some();
        if is_issued && !self.admitted.count_as(credential.terms.serial.client()) {
            return Err(Unsettled { closes: (CloseCode::Busy, HAS_ITS_SHARE), why: None });
        }
        self.credential = Some(credential);
        Ok(())
    }

    /// Its peer, as the protocol knows it.
    pub(super) fn client(&self) -> ConnectedClient {
        let at = client_at(self.remote);
        // On a client's own port its peer, a leader, has none; nor has a member of a group.
        let terms = self.credential.as_ref().map(|credential| &credential.terms);
        let rights = terms.and_then(|terms| match &terms.purpose {
            CredentialPurpose::Client(rights) => Some(Arc::new(rights.clone())),
            CredentialPurpose::Member => None,
        });
        let label = terms.and_then(|terms| terms.label.clone());
        ConnectedClient {
            share: self.admitted.client(),
            at,
            rights,
            label: label.map(|text| ProvedLabel { text, bind: bind_proof }),
        }
    }

    /// Tells of what happened to it.
    pub(super) fn tell(&self, event: PortEvent, shared: &mut PortShared) {
        match self.dialect {
            Dialect::Locks => shared.events.push_back(event),
            Dialect::Group => shared.member_events.push_back(event),
        }
    }

    pub(super) fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        now: Instant,
        shared: &mut PortShared,
    ) {
        let told = Bytes::copy_from_slice(reason.as_bytes());
        self.inner.close(now, VarInt::from_u32(code as u32), told);
        if code == CloseCode::Unaccepted {
            self.silence();
        }
        self.end(Ended::Disconnected(reason.to_owned()), shared);
    }

    /// What it has said and was not read counts for nothing. Read as last words, it would be done with
    /// rights that its peer has no more: a peer that reads no answers has up to a window of it waiting.
    pub(super) fn silence(&mut self) {
        (self.reader, self.has_more, self.is_silenced) = (FrameReader::new(), false, true);
    }

    /// Reports its end, once.
    pub(super) fn end(&mut self, ended: Ended, shared: &mut PortShared) {
        if mem::replace(&mut self.is_over, true) {
            return;
        }
        let was_handshaking = self.admitted.end_handshake();
        // Nothing of it goes out any more, and QUIC goes on with the connection for a while.
        (self.out, self.written) = (Vec::new(), 0);
        if self.take_in(usize::MAX) {
            self.tell(PortEvent::Readable(self.id), shared);
        }
        let handle = shared.handles.remove(&self.id);
        if was_handshaking {
            shared.unfinished.extend(handle.map(|handle| (handle, self.id)));
        }
        shared.last_words.insert(self.id, mem::take(&mut self.reader));
        self.tell(PortEvent::Ended(self.id, ended), shared);
    }

    /// Moves what the stream has to the frame reader, and says so.
    pub(super) fn read_in(&mut self, shared: &mut PortShared) {
        if self.take_in(READ_AHEAD) && !self.is_over {
            self.tell(PortEvent::Readable(self.id), shared);
        }
    }

    /// Moves what the stream has to the frame reader, until that has so much; whether there was
    /// anything.
    pub(super) fn take_in(&mut self, limit: usize) -> bool {
        let Some(id) = self.stream.filter(|_| !self.is_silenced) else { return false };
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
    pub(super) fn write_out(&mut self) {
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

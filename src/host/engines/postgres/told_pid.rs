//! Which backend a connection was told that it has.
//!
//! A server tells each client its backend's process once, for requests to cancel. A pooler tells
//! numbers of its own there, since it has many backends for a client: so a client that is told
//! another process than the one that answers it does not have a backend to itself.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// What was told so far.
#[derive(Clone)]
pub(super) struct ToldPid(Arc<AtomicI64>);

/// A connection, read along until it is ready for the first query.
pub(super) struct ToldPidStream<S> {
    stream: S,
    reader: StartReader,
    told: ToldPid,
}

/// Where in the server's messages the reading is.
struct StartReader {
    /// Kind and length of a message, as far as they have come.
    head: Vec<u8>,
    /// What is to come of it.
    left: usize,
    pid: Vec<u8>,
    is_done: bool,
}

/// Until it was told.
const UNTOLD: i64 = i64::MIN;
/// A message is a byte, and a length that counts itself.
const HEAD: usize = 5;

impl ToldPid {
    pub(super) fn new() -> ToldPid {
        ToldPid(Arc::new(AtomicI64::new(UNTOLD)))
    }

    pub(super) fn pid(&self) -> Option<i32> {
        i32::try_from(self.0.load(Relaxed)).ok()
    }
}

impl<S> ToldPidStream<S> {
    /// Over what the server's messages come by, in the clear.
    pub(super) fn new(stream: S, told: ToldPid) -> ToldPidStream<S> {
        ToldPidStream { stream, reader: StartReader::new(), told }
    }
}

impl<S: TlsStream + Unpin> TlsStream for ToldPidStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

impl StartReader {
    fn new() -> StartReader {
        StartReader { head: Vec::new(), left: 0, pid: Vec::new(), is_done: false }
    }

    /// Reads on; the process, once it is known.
    fn read(&mut self, mut bytes: &[u8]) -> Option<i32> {
        let mut found = None;
        while !bytes.is_empty() && !self.is_done {
            if self.head.len() < HEAD {
                let count = bytes.len().min(HEAD - self.head.len());
                self.head.extend(&bytes[..count]);
                bytes = &bytes[count..];
                if self.head.len() == HEAD {
                    let length = self.head[1..].try_into().expect("four bytes");
                    self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                }
            } else {
                let count = bytes.len().min(self.left);
                if self.head[0] == b'K' {
                    let wanted = count.min(4 - self.pid.len());
                    self.pid.extend(&bytes[..wanted]);
                }
                bytes = &bytes[count..];
                self.left -= count;
            }
            if self.head.len() == HEAD && self.left == 0 {
                if self.head[0] == b'K' {
                    found = self.pid.as_slice().try_into().ok().map(i32::from_be_bytes);
                }
                // Ready for a query.
                self.is_done = self.head[0] == b'Z';
                self.head.clear();
            }
        }
        found
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ToldPidStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if !self.reader.is_done
            && let Some(pid) = self.reader.read(&buf.filled()[before..])
        {
            self.told.0.store(pid.into(), Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ToldPidStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

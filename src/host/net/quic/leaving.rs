//! Datagrams that are about to leave: those of several connections go in one write to the kernel.
//!
//! The kernel cuts one write into datagrams of one size, the last of which may be shorter, and a receiver
//! on the same machine gets them as they are, in one read. What the connections of a port send to one
//! address in one turn is of one size more often than not: answers to like requests.

use std::{collections::VecDeque, mem};

use quinn_proto::Transmit;

/// Longer ones go alone: one that tries whether the path takes so much would take the others with it, and
/// the kernel refuses to cut what the path does not take.
const JOINED_MAX: usize = 1_200;
/// So many leave in one write, which is one datagram to the kernel until it is cut.
const JOINED_SEGMENTS_MAX: usize = 32;
/// What an empty buffer keeps of its room.
const KEPT_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct LeavingWrites {
    /// The first is sent first. Of several all but the last wait for room in the kernel.
    writes: VecDeque<(Transmit, Vec<u8>)>,
    /// The kernel had no room for the first.
    is_blocked: bool,
    buffer: Vec<u8>,
}

impl LeavingWrites {
    /// Whether the kernel had no room.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Has it leave in one write with what is last to leave; given back if it cannot. The kernel takes so
    /// many datagrams in one write.
    pub(super) fn join(
        &mut self,
        transmit: Transmit,
        bytes: Vec<u8>,
        segments_max: usize,
    ) -> Option<(Transmit, Vec<u8>)> {
        let Some((last, written)) = self.writes.back_mut().filter(|_| !self.is_blocked) else {
            self.follow(transmit, bytes);
            return None;
        };
        let size = last.segment_size.unwrap_or(last.size);
        let its_size = transmit.segment_size.unwrap_or(transmit.size);
        let fits = size <= JOINED_MAX
            && last.size.is_multiple_of(size)
            && (its_size == size || its_size < size && its_size == transmit.size)
            && (last.size + transmit.size).div_ceil(size) <= segments_max.min(JOINED_SEGMENTS_MAX);
        if !fits
            || (last.destination, last.ecn, last.src_ip)
                != (transmit.destination, transmit.ecn, transmit.src_ip)
        {
            return Some((transmit, bytes));
        }
        written.truncate(last.size);
        written.extend_from_slice(&bytes[..transmit.size]);
        last.size += transmit.size;
        last.segment_size = Some(size);
        self.give_buffer(bytes);
        None
    }

    /// Has it leave after all others.
    pub(super) fn follow(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        self.writes.push_back((transmit, bytes));
    }

    /// The next to be sent.
    pub(super) fn next(&mut self) -> Option<(Transmit, Vec<u8>)> {
        self.is_blocked = false;
        self.writes.pop_front()
    }

    /// There was no room for it: it is the next again.
    pub(super) fn wait(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        self.writes.push_front((transmit, bytes));
        self.is_blocked = true;
    }

    /// An empty buffer.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        mem::take(&mut self.buffer)
    }

    /// Keeps a buffer for later.
    pub(super) fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= KEPT_BYTES && buffer.capacity() > self.buffer.capacity() {
            self.buffer = buffer;
        }
    }
}

#[cfg(test)]
mod tests;

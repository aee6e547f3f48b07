//! What QUIC is asked for: windows, limits, silence.

use std::{sync::Arc, time::Duration};

use quinn_proto::{MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};

use crate::host::net::tls::{Dialect, Secret};

use super::HANDSHAKES_MAX;

/// What a leader may send ahead of its client's reading.
const RECEIVE_WINDOW: u32 = 1 << 20;
/// What a client may send ahead of a leader's reading, in order or not: it is in the leader's
/// memory until then, for every one of many connections. It is no limit to the speed of a machine
/// nearby, and enough for a megabyte a second over 60 ms.
pub(super) const LEADER_RECEIVE_WINDOW: u32 = 64 << 10;
/// Before the first round trip neither side knows how long one takes, and a packet that is lost in a
/// handshake is sent again after three of them. QUIC's own guess of 333 ms would make that a
/// second, in which a client that returns to a restarted leader has no lock. Leaders are near; for one
/// that is not, a few packets more are sent than are needed.
pub(super) const INITIAL_RTT: Duration = Duration::from_millis(50);
/// What of a client's sending may be unacknowledged.
const SEND_WINDOW: u64 = 1 << 20;
/// What of a leader's sending to one client may be unacknowledged, for the same reasons as
/// [`LEADER_RECEIVE_WINDOW`].
pub(super) const LEADER_SEND_WINDOW: u64 = 64 << 10;
/// What a leader keeps of a client's handshake that came out of order: the least that QUIC allows,
/// and several times what any client sends.
const LEADER_CRYPTO_BYTES: usize = 4 << 10;

pub(super) fn server_config(secret: &Secret, dialects: &[Dialect]) -> ServerConfig {
    let mut server = ServerConfig::new(secret.server(dialects), secret.token_key());
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
pub(super) fn client_transport(silence: Duration) -> TransportConfig {
    let mut config = transport();
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    config
        .max_concurrent_bidi_streams(0_u32.into())
        .max_idle_timeout(Some(VarInt::from_u32(millis).into()))
        .keep_alive_interval(Some(silence / 3));
    config
}

//! What client and leader share of the network: sockets, QUIC, the secret and its keys, addresses.

pub(super) mod acceptance;
pub(super) mod address;
pub(super) mod admission;
pub(super) mod bell;
pub(super) mod client_keys;
pub(super) mod credential;
pub(super) mod hex;
pub(super) mod issued;
pub(super) mod own_id;
mod owned_file;
pub(super) mod patience;
pub(super) mod quic;
pub(super) mod secret_file;
pub(super) mod serials;
pub(super) mod tls;

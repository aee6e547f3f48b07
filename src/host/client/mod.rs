//! The client's side of host scope: callers' requests, and the connection that carries them.

#[cfg(feature = "host")]
mod carrier;
#[cfg(feature = "host")]
mod driver;
pub(crate) mod link;
#[cfg(feature = "host")]
mod ports;
#[cfg(feature = "host")]
mod reader;
#[cfg(feature = "host")]
mod routes;
#[cfg(any(feature = "host", all(test, tierlock_loom)))]
mod wire_word;

#[cfg(feature = "host")]
pub(crate) use self::driver::connect;
#[cfg(all(test, feature = "host"))]
pub(super) use self::driver::connect_apart;
#[cfg(feature = "tokio")]
pub(crate) use self::reader::LentReader;

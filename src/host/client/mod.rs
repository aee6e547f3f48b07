//! The client's side of host scope: callers' requests, and the connection that carries them.

#[cfg(feature = "host")]
mod driver;
pub(crate) mod link;
#[cfg(feature = "host")]
mod reader;
#[cfg(feature = "host")]
mod routes;

#[cfg(feature = "host")]
pub(crate) use self::driver::connect;
#[cfg(feature = "tokio")]
pub(crate) use self::reader::LentReader;

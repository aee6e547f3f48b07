//! Host tier: drivers around `proto`. They move bytes and read clocks and decide nothing about
//! locks.

#[cfg(feature = "host")]
mod journal;
pub(crate) mod link;
#[cfg(feature = "host")]
mod tls;

//! Host tier: drivers around `proto`. They move bytes and read clocks and decide nothing about
//! locks.

pub(crate) mod link;
#[cfg(feature = "host")]
mod tls;

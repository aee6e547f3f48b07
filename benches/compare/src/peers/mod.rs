//! What tierlock is compared with: locks of other makers, and servers started for the purpose.
//!
//! Each is used the way its documentation recommends, its release awaited if that is how it is
//! used, and its caller is like tierlock's: one plain thread, or tasks on the same runtime. What
//! each side does and guarantees stands in `guarantees.txt`.

pub(crate) mod cross;
pub(crate) mod field;
pub(crate) mod followed;
pub(crate) mod host;
pub(crate) mod server;
pub(crate) mod servers;
pub(crate) mod service;
pub(crate) mod shared;
pub(crate) mod thread;

pub(crate) mod etcd;
pub(crate) mod etcd_members;
mod mariadb;
pub(crate) mod postgres;
mod quic_echo;
pub(crate) mod redis;
mod redlock;
mod sys;
mod zookeeper;

pub(crate) use sys::processor_time;

//! The integration tests, as one binary: the API's shape, one conformance suite over all scopes,
//! kills, and the program.

mod addresses;
mod api;
mod bad_input;
mod bench;
mod children;
mod cli;
mod conformance;
mod decoding;
#[cfg(feature = "service")]
mod engines;
mod fence;
mod groups;
mod helper;
mod intruder;
mod killing;
mod kills;
mod pitfalls;
mod questions;
mod restarts;
mod setting;
#[cfg(feature = "tracing")]
mod spans;
mod surroundings;
mod valgrind;
mod workloads;

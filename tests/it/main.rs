//! The integration tests, as one binary: the API's shape, one conformance suite over all scopes,
//! kills, and the program.

mod api;
mod bench;
mod cli;

//! The table engine: one shared-memory table for all names, presences prove that holders live.

// Nobody uses it yet: the engine that stores the slots comes next.
#![allow(dead_code)]

mod lock;
#[cfg(test)]
mod model;
mod protocol;
mod slot;
mod step;
mod word;

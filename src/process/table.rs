//! The table engine: one shared-memory table for all names, presences prove that holders live.

// Nobody uses it yet: the engine that stores the slots comes next.
#![cfg_attr(not(test), allow(dead_code))]

mod lock;
mod protocol;
mod slot;
mod step;
mod word;

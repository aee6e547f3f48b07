//! How locks are measured, and the rows of tierlock's own locks.
//!
//! A run is a list of heats (`run::Heat`): one case in one scope, with its contenders, measured in
//! slices taken in turn. A heat of `tierlock bench` has one subject; `benches/compare` compiles the
//! same files into a package of its own and adds others' locks to the heats, and heats to the run.
//! So these files name the library as every user does, `tierlock::…`, and use its public API only.
//!
//! It measures on loopback, on one machine, with the leader in this process: a network between
//! machines adds its round trip to host scope, and nothing else changes.
//!
//! | file | owns |
//! |---|---|
//! | `case` | the words: cases, labels of rows |
//! | `stats` `report` `table` `human` | figures, their JSON, and their table |
//! | `run` | heats, contenders, the order of the slices |
//! | `thread` `process` `host` | the contenders of each scope, and their entries for tierlock |
//! | `crowd` `tasks` | callers side by side: threads with a client each, tasks of a runtime |
//! | `jobs` `worker` | what the child processes do, and how they are started and told |
//! | `grounds` `cleanup` `machine` `progress` | directories, leader and runtime; their end; where, how far |

pub(crate) mod case;
pub(crate) mod cleanup;
pub(crate) mod crowd;
pub(crate) mod failure;
pub(crate) mod grounds;
pub(crate) mod host;
pub(crate) mod human;
pub(crate) mod jobs;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod tasks;
pub(crate) mod thread;
pub(crate) mod worker;

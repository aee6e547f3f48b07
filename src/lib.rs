//! One layered [`Mutex<T>`](Mutex) over three scopes: the threads of a process, the processes of
//! a machine, machines.
//!
//! You ask for the widest scope you may need, and pay for the narrowest one that is really
//! shared.
//!
//! **What it does not do.** Above process scope a lock can be lost while you hold the guard: a
//! lease ends when its leader hears nothing for a time to live. A loss ends the right, not the
//! borrow, so have the [`Token`] checked where it matters: give it to what the lock protects, and
//! let that refuse a smaller one. And perhaps you need no lock at all: a unique key or a version
//! column in the database that you write to is stronger than any lock.
//!
//! ```
//! static HITS: tierlock::Mutex<u64> = tierlock::Mutex::new(0); // thread scope: nothing to set up
//!
//! *HITS.lock()? += 1;
//! # Ok::<(), tierlock::LockError>(())
//! ```
//!
//! Named locks come from a [`LockManager`], which knows a directory (process scope), leaders
//! (host scope), or both:
//!
//! ```no_run
//! use tierlock::{LockManager, MutexGuard, Scope};
//! # struct Store; impl Store { fn write(&self, _: tierlock::Token, _: &u64) {} }
//! # let store = Store;
//!
//! let locks = LockManager::builder()
//!     .directory("/var/lib/shop/locks")
//!     .leaders(["10.0.0.1:7420"])
//!     .secret_file("/etc/shop/tierlock.key")
//!     .label("checkout")
//!     .open()?;
//! let ledger = locks.mutex("ledger/eu", 0_u64).scope(Scope::Host).build()?;
//! let mut guard = ledger.lock()?;
//! *guard += 1;
//! store.write(MutexGuard::check(&guard)?, &guard); // the store refuses stale tokens
//! # Ok::<(), tierlock::LockError>(())
//! ```
//!
//! Where to read on: the [guide] has the choice of a scope, what is guaranteed, how a leader is run,
//! how it all works, and a glossary. A reader of the code begins with the code map below and the guide's
//! [walk](guide::walk), which follows one lock from call to grant and back.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `process` | [`Scope::Process`]: file locks and shared memory; default |
//! | `host` | [`Scope::Host`]: the QUIC client and the [`Leader`], without an async runtime; default |
//! | `etcd`, `mysql`, `postgres`, `redis`, `zookeeper`, `engines` | [`LockManagerBuilder::service`]: locks between machines by a service that runs already, on one background thread; `engines` is all of them; each implies `host` and `service`, which is what they share. `etcd` and `postgres` are journals of several leaders too ([`LeaderBuilder::journal`]) |
//! | `tokio` | [`LockManagerBuilder::runtime`]: the runtime of async callers reads the leader's answers; implies `host` |
//! | `tracing` | spans of `acquire`, `hold` and `release` of named locks, with scope, name and token |
//! | `serde` | `Serialize` and `Deserialize` for [`Token`], as a number |
//! | `testing` | [`LockManager::in_memory`], for tests of your own |
//! | `cli` | the program `tierlock`, for `cargo install tierlock --features cli`; implies `process`, `host`, `tokio` and `serde`. A library has no use for it |
//! | `mistakes` | defects that the simulator plants and finds; for tierlock's own tests |
//!
//! With `default-features = false` there is thread scope only. A build without `cli` and `tokio`
//! pulls in neither tokio nor clap, and one without `host` no QUIC either.
//!
//! # Code map
//! A file imports only from lower layers and from its own folder; `tests/layers.rs` checks that.
//!
//! | layer | place | owns | never |
//! |---|---|---|---|
//! | 0 | `fork` `latches` `thread_number` `system` | what a forked child has of its own, numbers of threads, calls of the C library; islands of `unsafe` | knows locks |
//! | 1 | `scope` `name` `token` `time` `printable` `error` `identity` `mode` `elected` `mistake` | the vocabulary | imports ours |
//! | 2 | `clock` `alarm` `callbacks` `watch` `blocking` `cooperate` `filesystem` | the one clock, timers and callbacks, telling of a loss, waiting for a future, a task's budget, which file systems are trusted | decides about locks |
//! | 2 | `proto/` | the lease protocol, leader and client; `group/`, the journal that leaders keep themselves | does I/O, reads a clock |
//! | 3 | `thread` | thread tier | knows names |
//! | 3 | `process/` | process tier: `dir/` whatever the engine, `table/` and `flock` the engines; `sys` is its island of `unsafe` | judges by pid |
//! | 3 | `host/` | the lease word, the interface `service`; `client/`, `leader`, `journal` and `net/` around `proto`; `engines/`, lock services of other kinds | asks for a lease of its own accord |
//! | 4 | `path/` | the path through the tiers to the gate; `ground`, what the locks of one name share in this process | knows data |
//! | 5 | `api/` | the public types: mutex, read-write lock, semaphore, election, several at once, guards, manager; questions about other holders' locks | moves bytes |
//! | 6 | `fence` | gates that refuse stale tokens | asks a leader |
//! | 7 | `cli/` `bench/` `main` | the program; `benches/compare` builds `bench/` too | is used by the library |
//! | 7 | `guide/` | the pages of the [guide] | has code |
//! | 7 | `misuse` | what must not compile, as doc tests | is in any build but theirs |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod mistake;
#[cfg(any(feature = "host", feature = "testing"))]
#[doc(hidden)]
pub mod proto;

// The bench names the library as its users do: `benches/compare` compiles the same files.
#[cfg(feature = "cli")]
extern crate self as tierlock;

mod alarm;
mod api;
#[cfg(feature = "cli")]
mod bench;
mod blocking;
mod callbacks;
mod clock;
mod cooperate;
mod elected;
mod error;
mod fork;
// Its gates are constants, which the model checker's locks are not.
#[cfg(not(tierlock_loom))]
pub mod fence;
#[cfg(any(feature = "host", feature = "process"))]
mod filesystem;
// Its examples use what the model checker's build leaves out.
#[cfg(not(tierlock_loom))]
pub mod guide;
mod host;
mod identity;
mod latches;
#[cfg(doctest)]
mod misuse;
mod mode;
mod name;
mod path;
#[cfg(all(test, tierlock_loom))]
mod played;
mod printable;
#[cfg(feature = "process")]
mod process;
mod thread_number;
/// Of the process tier the model checker has the table's words and machines, and no memory.
#[cfg(all(test, tierlock_loom, not(feature = "process")))]
#[allow(dead_code, unused_imports, unused_macros, reason = "the tier itself uses the rest")]
mod process {
    mod sys {
        pub(super) mod testing {
            pub(in super::super) fn signal_this_thread(signal: i32) {
                unreachable!("no step is to end with signal {signal} here")
            }
        }
    }

    mod table {
        mod protocol;
        mod share;
        #[path = "share/model.rs"]
        mod share_model;
        mod step;
        mod word;
    }
}
mod scope;
mod system;
mod thread;
mod time;
mod token;
mod watch;

pub use api::{
    all::{AllBuilder, AllGuard, AllLost, AllRequest},
    condvar::Condvar,
    election::{Election, ElectionBuilder, Leadership, LeadershipEnded, Observer},
    guard::{
        LockGuard, MutexGuard, OwnedMutexGuard, OwnedPermit, OwnedRwLockReadGuard,
        OwnedRwLockUpgradableReadGuard, OwnedRwLockWriteGuard, Permit, RwLockReadGuard,
        RwLockUpgradableReadGuard, RwLockWriteGuard,
    },
    manager::{Engine, LockManager, LockManagerBuilder},
    mutex::{Mutex, MutexBuilder},
    rwlock::{RwLock, RwLockBuilder},
    semaphore::{Semaphore, SemaphoreBuilder},
};
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
pub use api::{
    status::{LockState, LockStatus, Sharer, WaitingCaller},
    why::{Explanation, FreedBy},
};
pub use elected::ElectedLeader;
pub use error::{Holder, LockError, LockErrorKind, LostReason, Predecessor, Result};
/// What the simulator takes the tokens of leases from; outside semver.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use host::lease_word;
#[cfg(feature = "host")]
pub use host::{
    Credential, CredentialBuilder, Leader, LeaderBuilder, LeaderEvent, LeaderEventKind, Secret,
};
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
pub use mode::WaiterMode;
pub use name::{InvalidName, Name};
pub use path::Keep;
#[cfg(feature = "process")]
pub use process::Survivor;
/// What `benches/word.rs` measures of the table engine; outside semver.
#[cfg(all(feature = "process", feature = "testing"))]
#[doc(hidden)]
pub use process::parts;
#[cfg(feature = "host")]
pub use proto::rights::{ParseRoleError, Role};
pub use scope::{ParseScopeError, Scope};
#[doc(hidden)]
pub use time::Time;
pub use token::{ParseTokenError, Token};
pub use watch::Lost;

//! One conformance kit over the lock services that are not ours, each against its real server, and over our
//! own leader.
//!
//! `cargo test --features cli,testing,engines --test it engines::`. A test starts the servers that it
//! needs on free ports of loopback, in a directory of its own, and ends them. Where a server's
//! program is not installed it says so in one line and passes.
//!
//! What an engine cannot pass is not listed for it below; the guide's page says why.

mod cancelling;
mod chaos;
mod clusters;
mod daemon;
mod elections;
mod foreign;
mod journal;
mod kept;
mod lost_answers;
mod mysql;
mod names;
mod outages;
mod postgres;
mod program;
mod proxy;
mod rig;
#[cfg(all(feature = "etcd", feature = "postgres"))]
mod secured;
#[cfg(all(feature = "redis", feature = "mysql", feature = "zookeeper"))]
mod secured_locks;
mod sharing;
mod shedlock;
#[cfg(feature = "service")]
mod test_ca;
mod zookeeper;

use self::rig::EngineRig;

/// Makes one test for each engine out of a situation: `engines::sharing::a_try_fails::redis`.
macro_rules! on {
    (all, $situation:ident) => {
        $crate::engines::on!([redis redis_plain redlock etcd postgres mysql zookeeper] $situation);
    };
    // And our own leader, which the tests of the other directories have much more for.
    (all_and_own, $situation:ident) => {
        $crate::engines::on!(
            [redis redis_plain redlock etcd etcd_kept postgres mysql zookeeper own_leader] $situation
        );
    };
    // With a manager that keeps its leases, too.
    (all_and_kept, $situation:ident) => {
        $crate::engines::on!(
            [redis redis_plain redlock etcd etcd_kept postgres mysql zookeeper] $situation
        );
    };
    // Whose servers are killed or stopped.
    (alone, $situation:ident) => {
        $crate::engines::on!(
            [redis redis_plain redlock etcd postgres_alone mysql_alone zookeeper_alone] $situation
        );
    };
    (with_tokens, $situation:ident) => {
        $crate::engines::on!([redis redis_plain etcd postgres mysql zookeeper] $situation);
    };
    (with_tokens_and_own, $situation:ident) => {
        $crate::engines::on!([redis redis_plain etcd postgres mysql zookeeper own_leader] $situation);
    };
    (with_values_and_own, $situation:ident) => {
        $crate::engines::on!([etcd etcd_kept zookeeper own_leader] $situation);
    };
    (with_values, $situation:ident) => {
        $crate::engines::on!([etcd etcd_kept zookeeper] $situation);
    };
    // Whose locks outlive a connection, and a server's restart.
    (with_sessions, $situation:ident) => {
        $crate::engines::on!([redis redis_plain redlock etcd zookeeper] $situation);
    };
    ([$($engine:ident)*] $situation:ident) => {
        mod $situation {
            $(
                #[test]
                fn $engine() {
                    if let Some(rig) = $crate::engines::EngineRig::$engine() {
                        super::$situation(&rig);
                    }
                }
            )*
        }
    };
}
use on;

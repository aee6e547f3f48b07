//! Workers at a token-checked store, while they, their server and the network between are killed, stopped
//! and cut. A few seconds each; `TIERLOCK_LONG=300 cargo test --all-features --test it chaos` takes five
//! minutes for each.

use std::{path::Path, time::Duration};

use super::{
    on,
    proxy::Proxy,
    rig::{EngineRig, SHORT},
};
use crate::{
    helper::Helper,
    workloads::{Fault, Shop, WorkedService, no_update_is_lost},
};

on!(
    [redis redis_plain etcd etcd_kept postgres_alone mysql_alone zookeeper_alone]
    a_set_that_checks_tokens_never_loses_an_update
);
fn a_set_that_checks_tokens_never_loses_an_update(rig: &EngineRig) {
    const FAULTS: [Fault; 7] = [
        Fault::KillWorker,
        Fault::StopWorker,
        Fault::KillLeader,
        Fault::StopLeader,
        Fault::Cut,
        Fault::CutTowardsLeader,
        Fault::CutTowardsWorker,
    ];
    no_update_is_lost(&Shop::open(rig, "fenced-set").suffer(&FAULTS));
}

impl WorkedService for &EngineRig {
    type Way = Vec<Proxy>;

    fn life(&self) -> Duration {
        SHORT
    }

    fn folder(&self) -> &Path {
        EngineRig::folder(self)
    }

    fn new_way(&self) -> Vec<Proxy> {
        self.proxies()
    }

    fn client(&self, way: &Vec<Proxy>) -> Helper {
        let url = self.url_of(way.iter().map(Proxy::port));
        EngineRig::helper_at(&url, SHORT)
    }

    /// Half open: what is sent waits.
    fn disturb(&self, way: &Vec<Proxy>, fault: Fault) {
        for proxy in way {
            match fault {
                Fault::CutTowardsLeader => proxy.mute(true),
                Fault::CutTowardsWorker => proxy.deafen(true),
                _ => proxy.stall(true),
            }
        }
    }

    /// What has waited comes through, or is lost with its connection.
    fn repair(&self, way: &Vec<Proxy>) {
        for (number, proxy) in way.iter().enumerate() {
            if (proxy.sent() as usize + number).is_multiple_of(2) {
                proxy.cut();
            }
            proxy.stall(false);
        }
    }

    fn kill(&mut self) {
        self.each(|server| server.kill());
    }

    fn restart(&mut self) {
        self.each(|server| server.start());
    }

    fn stop(&self) {
        self.each(|server| server.stop());
    }

    fn resume(&self) {
        self.each(|server| server.resume());
    }
}

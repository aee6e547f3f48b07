//! Leaders' addresses, of which some do not answer.

use std::net::UdpSocket;

use tierlock::{LockManager, MutexGuard};

use crate::setting::{LONG, Rig};

/// A machine that is gone, or one behind a firewall that drops packets.
#[test]
fn one_address_of_several_that_does_not_answer_makes_no_lock_fail() {
    let rig = Rig::start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [silent.local_addr().unwrap().to_string(), rig.address()];
    let open = || {
        let builder = LockManager::builder().leaders(addresses.clone()).secret_file(rig.secret());
        builder.connect_timeout(LONG).open().unwrap()
    };
    let locks = open();
    let held = locks.mutex("a", ()).lock().unwrap();
    rig.stop();
    rig.restart();
    // It comes back by the address that answers, and others come anew.
    drop(locks.mutex("b", ()).lock().unwrap());
    MutexGuard::check(&held).unwrap();
    drop(open().mutex("c", ()).lock().unwrap());
}

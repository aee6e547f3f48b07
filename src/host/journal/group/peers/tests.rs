use std::{io, net::SocketAddr};

use super::*;

fn mail() -> Arc<GroupMail> {
    Arc::new(GroupMail::new(Arc::new(|_| {})).unwrap())
}

fn peer(address: &str) -> GroupPeer {
    GroupPeer::new(&MemberName::new("a"), &MemberName::new("b"), &address.parse().unwrap())
}

fn found(mail: &GroupMail) -> LookedUp {
    loop {
        if let Some((name, found)) = mail.take().looked_up.pop() {
            assert_eq!(name, MemberName::new("b"));
            return found;
        }
        mail.bell.sleep(&[], SILENCE);
    }
}

#[test]
fn a_name_is_looked_up_by_one_thread_at_a_time_and_anew_after_each_failure() {
    let (mut peer, mail, secret) = (peer("localhost:1"), mail(), Secret::from_secrets(&[[7; 32]]));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        peer.way = PeerWay::Pause(Instant::now());
        peer.turn(&secret, &mail);
        assert!(matches!(peer.way, PeerWay::LookingUp));
        // However long the resolver takes, it is asked once, and nothing else waits for it.
        peer.turn(&secret, &mail);
        assert!(matches!(peer.way, PeerWay::LookingUp) && peer.due().is_none());
        drop(found(&mail));
        assert!(mail.take().looked_up.is_empty());
        let before = Instant::now();
        peer.looked_up(Err(io::ErrorKind::NotFound.into()), &secret);
        let PeerWay::Pause(until) = peer.way else { panic!("it waits before it looks again") };
        pauses.push(until - before);
    }
    assert!(pauses.iter().all(|pause| *pause >= PAUSE && *pause <= PAUSE_MAX + SILENCE));
    assert!(pauses.last() > pauses.first());
}

#[test]
fn a_name_without_addresses_is_looked_up_again_and_a_late_answer_counts_for_nothing() {
    let (mut peer, secret) = (peer("localhost:1"), Secret::from_secrets(&[[7; 32]]));
    peer.way = PeerWay::LookingUp;
    peer.looked_up(Ok(Vec::new()), &secret);
    assert!(matches!(peer.way, PeerWay::Pause(_)));
    let at: SocketAddr = "127.0.0.1:1".parse().unwrap();
    peer.looked_up(Ok(vec![at]), &secret);
    assert!(matches!(peer.way, PeerWay::Pause(_)));
}

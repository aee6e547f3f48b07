use super::*;

#[test]
fn a_ring_before_or_during_sleep_ends_it_once() {
    let bell = Bell::new().unwrap();
    // Rung before: no sleep at all, so a thousand of them take no minute.
    for _ in 0..1000 {
        bell.ring();
        bell.ring();
        bell.sleep(&[], LONGEST_SLEEP);
        assert_eq!(bell.state.load(Relaxed), AWAKE);
    }
}

#[test]
fn a_socket_is_seen_though_the_bell_was_rung() {
    let bell = Bell::new().unwrap();
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    socket.send_to(&[1], socket.local_addr().unwrap()).unwrap();
    bell.ring();
    assert!(bell.sleep(&[(socket, false)], LONGEST_SLEEP));
}

#[test]
fn a_ring_that_comes_late_ends_only_one_sleep() {
    let bell = Bell::new().unwrap();
    (&bell.bed.writer).write_all(&[1]).unwrap();
    bell.sleep(&[], LONGEST_SLEEP);
    assert!((&bell.bed.reader).read(&mut [0; 8]).is_err());
}

#[test]
fn a_socket_opened_closed_or_out_of_room_wakes_the_sleeper() {
    let socket = || Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let [one, other] = [socket(), socket()];
    let known = vec![(one.clone(), false)];
    assert!(is_same(&known, &known.clone()));
    for news in [
        vec![],
        vec![(one.clone(), true)],
        vec![(other.clone(), false)],
        vec![(one.clone(), false), (other, false)],
    ] {
        assert!(!is_same(&news, &known) && !is_same(&known, &news));
    }
}

#[test]
fn a_socket_that_took_the_place_of_a_closed_one_is_slept_on() {
    let bell = Bell::new().unwrap();
    for _ in 0..3 {
        // The number of the one before, which is closed only when no thread sleeps on it.
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(!bell.sleep(&[(socket.clone(), false)], Duration::ZERO));
        assert!(bell.sleep(&[(socket.clone(), true)], LONGEST_SLEEP));
        assert!(!bell.sleep(&[(socket.clone(), false)], Duration::ZERO));
        socket.send_to(&[1], socket.local_addr().unwrap()).unwrap();
        assert!(bell.sleep(&[(socket, false)], LONGEST_SLEEP));
    }
}

use super::*;

fn at(text: &str) -> ClientId {
    client_at(text.parse().unwrap())
}

#[test]
fn a_client_is_an_address_or_a_network_of_ipv6() {
    assert_eq!(at("192.0.2.1:7420"), at("192.0.2.1:7"));
    assert_ne!(at("192.0.2.1:7420"), at("192.0.2.2:7420"));
    assert_eq!(at("[2001:db8::1]:1"), at("[2001:db8::2]:9"));
    assert_ne!(at("[2001:db8::1]:1"), at("[2001:db8:0:1::1]:1"));
    assert_eq!(at("[::ffff:192.0.2.1]:1"), at("192.0.2.1:7420"));
}

/// As many as are admitted of a client.
fn fill(admission: &Admission, client: ClientId) -> Vec<Admitted> {
    let mut all = Vec::new();
    while admission.admits(client) {
        all.push(admission.admit(client));
    }
    all
}

#[test]
fn one_client_takes_half_of_what_is_free_and_the_next_half_of_the_rest() {
    let admission = Admission::new(100, 100);
    let [one, other, third] = ["127.0.0.2:1", "127.0.0.3:1", "127.0.0.4:1"].map(at);
    let of_one = fill(&admission, one);
    let of_other = fill(&admission, other);
    assert_eq!((of_one.len(), of_other.len()), (50, 25));
    assert!(admission.admits(third));
    assert_eq!(admission.taken(), (75, 75));
    drop(of_one);
    assert!(admission.admits(one) && admission.admits(other));
    drop(of_other);
    assert_eq!(admission.taken(), (0, 0));
}

#[test]
fn a_connection_counts_as_its_credentials_once_that_is_shown() {
    let admission = Admission::new(8, 100);
    let (here, credential) = (at("127.0.0.2:1"), ClientId(0xff << 120));
    let mut of_credential = Vec::new();
    // From one address come all of them, and half of what is free is its own.
    let is_refused = loop {
        let mut admitted = admission.admit(here);
        if !admitted.count_as(credential) {
            break admitted;
        }
        assert_eq!(admitted.client(), credential);
        of_credential.push(admitted);
    };
    assert_eq!((of_credential.len(), is_refused.client()), (4, here));
    assert_eq!(admission.taken().0, 5);
    drop((of_credential, is_refused));
    assert_eq!(admission.taken(), (0, 0));
}

#[test]
fn handshakes_and_connections_are_limited_apart() {
    let admission = Admission::new(100, 8);
    let client = at("127.0.0.2:1");
    let mut stalled = fill(&admission, client);
    assert_eq!(stalled.len(), 4);
    assert!(stalled[0].end_handshake() && !stalled[0].end_handshake());
    assert_eq!(admission.taken(), (4, 3));
    assert_eq!(fill(&admission, client).len(), 1);
}

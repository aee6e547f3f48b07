use super::*;

/// Takes as many as it gets.
fn fill(shares: &mut Shares, client: u128) -> usize {
    let client = ClientId(client);
    std::iter::from_fn(|| shares.has_room_for(client).then(|| shares.take(client))).count()
}

#[test]
fn one_client_gets_half_and_each_further_one_half_of_the_rest() {
    for max in [1, 2, 3, 100, 101] {
        assert_eq!(fill(&mut Shares::new(max), 1), largest_share(max));
    }
    let mut shares = Shares::new(100);
    let all: Vec<_> = (1..=8).map(|client| fill(&mut shares, client)).collect();
    assert_eq!(all, [50, 25, 13, 6, 3, 2, 1, 0]);
    // What one gives back is free for all.
    shares.give_back(ClientId(1));
    assert!(shares.has_room_for(ClientId(9)) && !shares.has_room_for(ClientId(2)));
    shares.clear();
    assert_eq!(shares.taken(), 0);
    assert!(shares.has_room_for(ClientId(1)));
}

use super::is_loopback;

#[test]
fn only_this_machine_is_loopback() {
    for address in ["127.0.0.1", "127.0.0.1:5432", "localhost:2379", "[::1]:2379", "::1", "[::1]"] {
        assert!(is_loopback(address), "{address}");
    }
    for address in
        ["10.0.0.1", "db", "localhost.example:5432", "[fe80::1]:2379", "127.0.0.1.example"]
    {
        assert!(!is_loopback(address), "{address}");
    }
}

use super::*;

#[test]
fn addresses_are_read_as_people_write_them() {
    for (text, shown) in [
        ("10.0.0.1", "10.0.0.1:7420"),
        ("10.0.0.1:7", "10.0.0.1:7"),
        ("locks.example", "locks.example:7420"),
        (" locks.example:0 ", "locks.example:0"),
        ("::1", "[::1]:7420"),
        ("[::1]", "[::1]:7420"),
        ("[::1]:8", "[::1]:8"),
    ] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
    }
    for text in ["", ":7", "a b", "a:x", "a:70000", "[::1", "[::1]7", "a/b", "a:1:2"] {
        assert!(text.parse::<Address>().is_err(), "{text:?}");
    }
}

#[test]
fn a_literal_needs_no_look_up() {
    let address: Address = "[::1]:8".parse().unwrap();
    assert_eq!(address.literal(), Some("[::1]:8".parse().unwrap()));
    assert_eq!(address.resolve().unwrap(), ["[::1]:8".parse().unwrap()]);
    assert_eq!("localhost".parse::<Address>().unwrap().literal(), None);
}

#[test]
fn a_port_alone_is_every_address_of_this_machine_to_listen_at() {
    let everywhere: ListenAddress = " :7421".parse().unwrap();
    assert_eq!(everywhere.to_string(), ":7421");
    let [found] = everywhere.resolve().unwrap()[..] else { panic!("one serves all") };
    assert!(found.ip().is_unspecified());
    assert_eq!(found.port(), 7421);
    let named: ListenAddress = "10.0.0.1".parse().unwrap();
    assert_eq!(named.to_string(), "10.0.0.1:7420");
    for text in [":", ":70000", ":x", "::7", ""] {
        let parsed = text.parse::<ListenAddress>();
        assert!(!matches!(parsed, Ok(ListenAddress::Everywhere { .. })), "{text:?}");
    }
    // No client reaches a leader so.
    assert!(":7421".parse::<Address>().is_err());
}

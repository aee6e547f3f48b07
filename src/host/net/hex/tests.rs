use super::*;

#[test]
fn bytes_are_read_back_from_their_digits_in_either_case() {
    let bytes = [0, 1, 0x10, 0x7f, 0xab, 0xff];
    assert_eq!(to_hex(&bytes), "0001107fabff");
    assert_eq!(from_hex(b"0001107fabff"), Some(bytes));
    assert_eq!(from_hex(b"0001107FABFF"), Some(bytes));
}

#[test]
fn other_digits_and_other_lengths_are_refused() {
    for text in ["", "0", "001", "00112", "00 1", "+1+1", "0x01", "00g1", "é1"] {
        assert_eq!(from_hex::<2>(text.as_bytes()), None, "{text}");
    }
}

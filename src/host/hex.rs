//! Hexadecimal digits, as files of a leader and of a secret have them.

/// Two digits for each byte.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `N` bytes that exactly `2 * N` hexadecimal digits stand for.
pub(super) fn from_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
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
}

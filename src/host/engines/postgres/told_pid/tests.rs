use super::*;

#[test]
fn the_process_is_found_however_the_bytes_come() {
    let mut start = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x09K\0ey\0".to_vec();
    start.extend(b"K\0\0\0\x0c\0\0\x12\x34\xde\xad\xbe\xefZ\0\0\0\x05I");
    for size in 1..=start.len() {
        let mut reader = StartReader::new();
        let found = start.chunks(size).filter_map(|bytes| reader.read(bytes)).last();
        assert_eq!(found, Some(0x1234), "in pieces of {size}");
        assert!(reader.is_done);
        assert_eq!(reader.read(b"K\0\0\0\x0c\0\0\0\x01\0\0\0\0"), None);
    }
}

use super::*;

#[test]
fn every_number_lies_in_one_part() {
    for starts in [&SLOTS[..], &NAMES[..], &HEADS[..], &RECORDS[..], &SHARES[..]] {
        assert!(starts.is_sorted_by(|one, next| one < next));
        let last = starts[starts.len() - 1] - 1;
        for number in [0, 1, 255, 256, 257, 319, 320, 65_535, 100_000, 1_000_000] {
            let number = u64::min(number, last);
            let (part, at) = place(starts, number);
            assert_eq!(starts[part] + at as u64, number);
            assert!(at < size(starts, part));
        }
    }
}

#[test]
fn parts_begin_and_end_at_pages() {
    let whole_pages = |starts: &[u64], bytes| starts.iter().all(|s| s * bytes % 4096 == 0);
    assert!(whole_pages(&SLOTS, 64) && whole_pages(&NAMES, 4) && whole_pages(&HEADS, 4));
    assert!(whole_pages(&RECORDS, 4) && whole_pages(&RECORDS, 16));
}

#[test]
fn growth_adds_no_more_than_an_eighth() {
    let large = SLOTS.windows(2).filter(|pair| pair[0] >= 1024);
    for pair in large {
        assert!(pair[1] - pair[0] <= pair[0] / 8);
    }
}

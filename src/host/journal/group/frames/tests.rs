use proptest::prelude::*;

use super::*;

fn file_of(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        append_frame(number as u64 + 7, body, &mut file);
    }
    file
}

fn bodies_in(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let found = find_frames(file)?;
    Ok(found.frames.into_iter().map(|(_, body)| file[body].to_vec()).collect())
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // A disk's sectors have some bytes that are not zero.
    let body = proptest::collection::vec(1..=u8::MAX, 0..1500);
    proptest::collection::vec(body, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_found(bodies in bodies()) {
        let file = file_of(&bodies);
        prop_assert_eq!(find_frames(&file).unwrap().end, file.len());
        prop_assert_eq!(bodies_in(&file).unwrap(), bodies);
    }

    /// Of the last frame some sectors reached the disk, and some did not.
    #[test]
    fn a_last_frame_that_lacks_sectors_is_torn(bodies in bodies(), reached in any::<u64>()) {
        let whole = file_of(&bodies[..bodies.len() - 1]);
        let mut file = file_of(&bodies);
        let mut lacks_any = false;
        for (at, byte) in file.iter_mut().enumerate().skip(whole.len()) {
            if reached >> (at / SECTOR_BYTES % 64) & 1 == 0 {
                lacks_any |= std::mem::take(byte) != 0;
            }
        }
        let expected = if lacks_any { &bodies[..bodies.len() - 1] } else { &bodies[..] };
        prop_assert_eq!(bodies_in(&file), Ok(expected.to_vec()));
    }

    #[test]
    fn one_turned_bit_is_damage(bodies in bodies(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut file = file_of(&bodies);
        let at = at.index(file.len());
        file[at] ^= 1_u8 << bit;
        prop_assert!(bodies_in(&file).is_err(), "byte {at}");
    }
}

#[test]
fn a_file_that_ends_within_its_last_frame_has_all_before_it() {
    let bodies = [vec![1; 700], vec![2; 40], vec![3; 900]];
    let file = file_of(&bodies);
    let last = file_of(&bodies[..2]).len();
    for end in last..file.len() {
        let found = find_frames(&file[..end]).unwrap();
        assert_eq!((found.frames.len(), found.end), (2, last), "{end}");
    }
    assert_eq!(find_frames(b""), Ok(FoundFrames { frames: Vec::new(), end: 0 }));
}

#[test]
fn a_frame_out_of_its_order_is_damage() {
    let mut file = file_of(&[vec![1; 10]]);
    append_frame(9, b"two on", &mut file);
    assert!(find_frames(&file).unwrap_err().contains("write 9"));
}

use super::*;

fn to(port: u16, size: usize, segment_size: Option<usize>) -> Transmit {
    let destination = ([127, 0, 0, 1], port).into();
    Transmit { destination, ecn: None, size, segment_size, src_ip: None }
}

/// The writes that become of these: to which port, how many bytes, in pieces of which size.
fn writes(transmits: &[(u16, usize, Option<usize>)]) -> Vec<(u16, usize, Option<usize>)> {
    let mut leaving = LeavingWrites::default();
    let mut bytes = Vec::new();
    for (index, &(port, size, segment_size)) in transmits.iter().enumerate() {
        let content = vec![index as u8; size];
        bytes.extend_from_slice(&content);
        if let Some((transmit, content)) = leaving.join(to(port, size, segment_size), content, 64) {
            leaving.follow(transmit, content);
        }
    }
    let mut writes = Vec::new();
    let mut left = Vec::new();
    while let Some((transmit, content)) = leaving.next() {
        left.extend_from_slice(&content[..transmit.size]);
        writes.push((transmit.destination.port(), transmit.size, transmit.segment_size));
    }
    assert!(left == bytes, "in order, and nothing is lost");
    writes
}

#[test]
fn datagrams_of_one_size_to_one_address_leave_in_one_write() {
    assert_eq!(writes(&[(1, 70, None); 1]), [(1, 70, None)]);
    assert_eq!(writes(&[(1, 70, None); 3]), [(1, 210, Some(70))]);
    // A shorter one is the last of its write.
    let shorter = [(1, 70, None), (1, 60, None), (1, 60, None), (1, 60, None)];
    assert_eq!(writes(&shorter), [(1, 130, Some(70)), (1, 120, Some(60))]);
    // A longer one is none of it, and neither is one to another peer.
    let others = [(1, 70, None), (1, 71, None), (2, 71, None), (1, 71, None)];
    assert_eq!(writes(&others), [(1, 70, None), (1, 71, None), (2, 71, None), (1, 71, None)]);
    // One that is cut already.
    let cut = [(1, 70, None), (1, 150, Some(70)), (1, 10, None)];
    assert_eq!(writes(&cut), [(1, 220, Some(70)), (1, 10, None)]);
    let longer = [(1, 140, Some(70)), (1, 200, Some(100))];
    assert_eq!(writes(&longer), longer);
    assert_eq!(writes(&[(1, 70, None); 2 * JOINED_SEGMENTS_MAX]).len(), 2);
    assert_eq!(writes(&[(1, JOINED_MAX + 1, None), (1, 70, None)]).len(), 2);
}

#[test]
fn nothing_joins_what_waits_for_room_and_all_goes_in_order() {
    let mut leaving = LeavingWrites::default();
    leaving.follow(to(1, 3, None), vec![0; 3]);
    let (transmit, bytes) = leaving.next().unwrap();
    leaving.wait(transmit, bytes);
    assert!(leaving.is_blocked());
    assert!(leaving.join(to(1, 3, None), vec![1; 3], 64).is_none());
    assert_eq!(leaving.next().unwrap().1, [0; 3]);
    assert!(!leaving.is_blocked());
    assert_eq!(leaving.next().unwrap().1, [1; 3]);
}

#[test]
fn where_the_kernel_cuts_nothing_each_leaves_alone() {
    let mut leaving = LeavingWrites::default();
    assert!(leaving.join(to(1, 3, None), vec![0; 3], 1).is_none());
    assert!(leaving.join(to(1, 3, None), vec![1; 3], 1).is_some());
}

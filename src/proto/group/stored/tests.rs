use super::*;
use crate::proto::group::entry::{DiskId, GroupCommand, GroupSeat, MemberName};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A disk that one release has written the next one reads.
#[test]
fn every_write_to_a_members_disk_keeps_its_bytes() {
    let voters = vec![GroupSeat { member: MemberName::new("a"), disk: DiskId(1) }];
    let cluster = ClusterId(9);
    let members = GroupMembers { cluster, voters, new_voters: Vec::new(), learners: Vec::new() };
    let place = LogPlace { term: 3, index: 300 };
    let snapshot = GroupSnapshot { place, members, state: GroupState::new(cluster) };
    let whole = StoredGroup {
        term: 4,
        voted_for: None,
        snapshot: Some(snapshot),
        entries: vec![GroupEntry::Term(4)],
    };
    let writes = [
        GroupWrite::Vote { term: 4, voted_for: Some(VoterId(2)) },
        GroupWrite::Entries { after: 300, entries: vec![GroupEntry::Command(GroupCommand::Made)] },
        GroupWrite::Whole(Box::new(whole)),
    ];
    let shown: Vec<_> = writes.iter().map(|write| hex(&write.encode())).collect();
    assert_eq!(shown, GOLDEN, "{shown:#?}");
    for write in writes {
        assert_eq!(GroupWrite::decode(&write.encode()), Ok(write));
    }
}

const GOLDEN: &[&str] = &[
    "00040102",
    "01fb2c01010204",
    "0204000103fb2c01090101610100000000000000000009000000000000010004",
];

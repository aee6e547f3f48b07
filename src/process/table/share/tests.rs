use super::*;
use crate::mode::PERMITS_MAX;

const READER: Share = Share::Reader;

#[test]
fn a_share_counts_and_tells_the_last_one() {
    let me = OwnerId::new(7).unwrap();
    let one = ShareWord::of(me).added(READER).unwrap();
    let two = one.added(READER).unwrap().wanted();
    assert_eq!((two.count(), two.owner(), two.rings(READER)), (2, Some(me), false));
    let last = two.subtracted(READER).unwrap();
    assert!(last.rings(READER) && last.is_wanted());
    assert_eq!(last.subtracted(READER), Some(ShareWord::of(me)));
    assert_eq!(ShareWord::of(me).subtracted(READER), None);
    assert_eq!(ShareWord::from_bits(ShareWord::of(me).bits() | COUNT).added(READER), None);
}

#[test]
fn each_return_of_permits_rings_once() {
    let (me, two) = (OwnerId::new(7).unwrap(), Share::Permits(2));
    let five = ShareWord::of(me).added(Share::Permits(5)).unwrap().wanted();
    assert!(five.rings(two));
    let three = five.subtracted(two).unwrap();
    assert_eq!((three.count(), three.is_wanted()), (3, false));
    assert!(!three.rings(two));
    assert_eq!(three.subtracted(Share::Permits(4)), None);
    let most = ShareWord::of(me).added(Share::Permits(PERMITS_MAX)).unwrap();
    assert_eq!(most.added(Share::Permits(1)), None);
    assert_eq!(most.subtracted(Share::Permits(PERMITS_MAX)), Some(ShareWord::of(me)));
}

#[test]
fn a_generation_and_the_head_beside_it_do_not_disturb_each_other() {
    let generation = Generation::default();
    generation.store(3, SeqCst);
    assert_eq!((generation.with_head(), generation.head()), (3, None));
    generation.link(9);
    generation.store(4, SeqCst);
    assert_eq!((generation.load(SeqCst), generation.head()), (4, Some(9)));
}

use super::*;

#[test]
fn marks_do_not_disturb_each_other() {
    let slot = MappedSlot::default();
    Marks::live(255, 127, Usage::Permits(7)).store(&slot);
    assert!(!Marks::note_swept(&slot, 7));
    Marks::note_before(&slot, 0x1234_5678_9abc, Predecessor::Broken, Time::ZERO);
    Marks::note_text(&slot, 90);
    let marks = Marks::of(&slot);
    assert!(marks.is_live() && marks.has_text() && marks.counts_permits());
    assert!(!Marks::live(255, 127, Usage::Lock).counts_permits());
    assert_eq!((marks.name_length(), marks.units()), (255, 90));
    assert_eq!(marks.before(0x1234_5678_9abc), Predecessor::Broken);
    assert_eq!(marks.before(0x1234_5678_9abd), Predecessor::Clean);
    assert!(!Marks::note_swept(&slot, 7), "the time stands in the token's place");
    assert!(Marks::note_swept(&slot, 7));
    assert!(!Marks::note_swept(&slot, 8));
    Marks::note_left(&slot, 9, Predecessor::Panicked);
    let marks = Marks::of(&slot);
    assert_eq!(marks.told(Predecessor::Died, 9), Predecessor::Panicked);
    assert_eq!(marks.told(Predecessor::Died, 10), Predecessor::Died);
    assert_eq!(marks.told(Predecessor::Expired, 9), Predecessor::Expired);
    assert_eq!(marks.before(9), Predecessor::Clean);
}

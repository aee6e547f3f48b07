use std::sync::Arc;

use super::{
    latest::{ForkStamp, LatestMade, Shortcut},
    *,
};

#[test]
fn what_was_replaced_stays_until_all_goes() {
    let counted = Arc::new(());
    let value = |number: u32| (number, counted.clone());
    let made = LatestMade::new(value(0));
    let first = made.get();
    made.replace(first, value(1));
    let second = made.get();
    made.replace(first, value(2)); // too late
    assert_eq!((first.0, second.0, made.get().0), (0, 1, 1));
    made.replace(second, value(3));
    assert_eq!((first.0, second.0, made.get().0), (0, 1, 3));
    assert_eq!(Arc::strong_count(&counted), 4, "what came too late is gone");
    drop(made);
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[test]
fn a_shortcut_keeps_alive_what_it_has_led_to() {
    let [first, second] = [1, 2].map(Arc::new);
    let way = Shortcut::new();
    assert_eq!(way.get(), None);
    for _ in 0..2 {
        way.lead_to(&first);
        assert_eq!(way.get(), Some(&1));
        way.lead_to(&second);
        assert_eq!(way.get(), Some(&2));
    }
    assert_eq!(Arc::strong_count(&first), 2, "once, however often it led there");
    drop(way);
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1));
}

#[test]
fn a_stamp_is_that_of_one_process() {
    let stamp = ForkStamp::of(generation());
    assert!(stamp.is_here());
    assert_eq!(stamp.generation(), generation());
    assert!(!ForkStamp::of(generation() + 1).is_here());
}

#[test]
fn of_threads_that_replace_one_value_at_once_one_is_first() {
    let made = LatestMade::new(0);
    for _ in 0..100 {
        let seen = made.get();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| made.replace(seen, seen + 1));
            }
        });
        assert_eq!(*made.get(), seen + 1);
        assert!(!ptr::eq(made.get(), seen));
    }
}

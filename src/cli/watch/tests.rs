use super::*;
use crate::{error::Holder, scope::Scope};

fn lock(name: &str, holder: Option<u32>) -> LockStatus {
    let state = if holder.is_some() { LockState::Held } else { LockState::Free };
    let holder = holder.map(|pid| Holder { pid: Some(pid), ..Holder::default() });
    LockStatus { state, holder, ..LockStatus::free(Name::new(name).unwrap(), Scope::Process) }
}

#[test]
fn what_has_changed_is_marked_once() {
    let mut view = WatchView::default();
    let first = view.frame(&[lock("a", None), lock("b", None)]).unwrap();
    assert!(!first.contains('*'), "{first}");
    assert_eq!(view.frame(&[lock("a", None), lock("b", None)]), None);
    let changed = view.frame(&[lock("a", Some(7)), lock("b", None)]).unwrap();
    assert!(changed.contains("* a") && changed.contains("  b"), "{changed}");
    assert_eq!(view.frame(&[lock("a", Some(7)), lock("b", None)]), None);
    // Another process holds it now.
    assert!(view.frame(&[lock("a", Some(8)), lock("b", None)]).unwrap().contains("* a"));
    let gone = view.frame(&[lock("b", None)]).unwrap();
    assert!(gone.contains("forgotten: a") && !gone.contains("* b"), "{gone}");
}

#[test]
fn a_terminal_is_drawn_anew_each_time() {
    let mut view = WatchView { is_terminal: true, ..WatchView::default() };
    for _ in 0..2 {
        let frame = view.frame(&[lock("a", None)]).unwrap();
        assert!(frame.starts_with(CLEAR) && !frame.contains('*'), "{frame}");
    }
}

#[test]
fn a_failure_is_told_once_and_ends_with_the_next_look() {
    let mut view = WatchView::default();
    let found = [lock("a", None)];
    view.frame(&found).unwrap();
    let failure = Failure::new(exit::UNREACHABLE, "no leader\nanswers");
    let told = view.failed(&failure).unwrap();
    assert!(told.contains("no leader\\nanswers; trying again"), "{told}");
    assert_eq!(view.failed(&failure), None);
    assert!(view.frame(&found).is_some());
}

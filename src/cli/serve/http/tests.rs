use super::*;

/// A lock that begins to be contended is seen at the next look of the page behind the end of what is shown to
/// all.
#[test]
fn the_page_is_less_than_a_second_behind() {
    let line = page::SCRIPT.lines().find_map(|line| line.strip_prefix("const EVERY_MS = "));
    let every = line.and_then(|rest| rest.strip_suffix(';')).unwrap().parse().unwrap();
    assert!(LOCKS_SHOWN + Duration::from_millis(every) < Duration::from_secs(1));
}

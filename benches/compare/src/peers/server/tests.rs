use super::*;

#[test]
fn programs_are_found_on_the_path_or_not_at_all() {
    assert!(find("sh").is_some());
    assert_eq!(find("tierlock-no-such-program"), None);
}

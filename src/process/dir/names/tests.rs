use super::*;
use proptest::prelude::*;

fn file_name_of(name: &str) -> String {
    file_name(&Name::new(name).unwrap())
}

#[test]
fn names_stay_readable() {
    assert_eq!(file_name_of("orders-42_x.y"), "orders-42_x.y");
    assert_eq!(file_name_of("orders/42"), "orders%2f42");
    assert_eq!(file_name_of("a b%2f~"), "a%20b%252f%7e");
    assert_eq!(file_name_of("EU"), "%45%55");
    assert_eq!(file_name_of("é"), "%c3%a9");
}

#[test]
fn dots_cannot_leave_the_directory() {
    assert_eq!(file_name_of("."), "%2e");
    assert_eq!(file_name_of(".."), "%2e.");
    assert_eq!(file_name_of("../../etc/passwd"), "%2e.%2f..%2fetc%2fpasswd");
}

#[test]
fn long_names_differ_by_their_hash() {
    let one = file_name_of(&("x".repeat(254) + "1"));
    let two = file_name_of(&("x".repeat(254) + "2"));
    assert_ne!(one, two);
    assert_eq!(one.len(), READABLE + 1 + 64);
    assert!(one.starts_with(&"x".repeat(READABLE)));
    assert_eq!(file_name_of(&"x".repeat(LONGEST)), "x".repeat(LONGEST));
}

fn any_name() -> impl Strategy<Value = Name> {
    prop_oneof!["[aA./~% é]{1,4}", "\\PC{1,60}", "[a-zA-Zß]{180,250}"]
        .prop_filter_map("a valid name", |text| Name::new(&text).ok())
}

proptest! {
    #[test]
    fn different_names_have_different_safe_files(one in any_name(), two in any_name()) {
        let (file_one, file_two) = (file_name(&one), file_name(&two));
        prop_assert_eq!(one == two, file_one == file_two);
        prop_assert_eq!(one == two, file_one.eq_ignore_ascii_case(&file_two));
        prop_assert!((1..=255).contains(&file_one.len()));
        prop_assert!(!file_one.starts_with('.') && !file_one.contains(['/', '\0']));
    }
}

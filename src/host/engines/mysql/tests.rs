use super::*;

#[test]
fn a_name_that_no_server_changes_is_sent_as_it_is() {
    for name in ["a", "orders/42", "ä", "日本", &"x".repeat(64)] {
        assert_eq!(key_of(name), name);
    }
}

/// MySQL would take `A` and `a` for one lock, and refuse 65 characters; MariaDB has other limits.
#[test]
fn a_name_that_a_server_would_change_is_readable_and_hashed() {
    let names = ["A", "Ab", "aB", " a", "a ", "a\u{1}", &"x".repeat(65), &"x".repeat(66)];
    let keys: std::collections::BTreeSet<String> = names.iter().map(|name| key_of(name)).collect();
    assert_eq!(keys.len(), names.len());
    for key in &keys {
        assert!(key.chars().count() <= KEY_MAX, "{key}");
        assert_eq!(*key, key.to_lowercase());
        assert_eq!(key.trim(), key);
    }
    assert!(key_of("Report").starts_with("report#"));
}

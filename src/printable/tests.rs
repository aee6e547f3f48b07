use super::*;

#[test]
fn controls_formats_and_directions_are_escaped_and_nothing_else() {
    for (text, shown) in [
        ("nightly.sh", "nightly.sh"),
        ("Zoë's \"job\" \\ 夜间 🦀 e\u{301}", "Zoë's \"job\" \\ 夜间 🦀 e\u{301}"),
        ("x\u{1b}[2J\u{1b}]0;owned\u{7}\nFAKE", r"x\u{1b}[2J\u{1b}]0;owned\u{7}\nFAKE"),
        ("a\tb\rc\0", r"a\tb\rc\u{0}"),
        ("\u{9b}31m\u{7f}", r"\u{9b}31m\u{7f}"),
        ("gpj\u{202e}exe.\u{2066}\u{200b}\u{feff}", r"gpj\u{202e}exe.\u{2066}\u{200b}\u{feff}"),
        ("\u{2028}\u{ad}\u{e0041}", r"\u{2028}\u{ad}\u{e0041}"),
    ] {
        assert_eq!(Printable(text).to_string(), shown);
    }
}

/// What `{:?}` of the standard library escapes as not printable, this escapes too, but for
/// blanks, private and unassigned characters, which only look odd.
#[test]
fn every_format_character_that_std_knows_is_escaped() {
    for c in (0..0xe1000).filter_map(char::from_u32).filter(|&c| is_misleading(c)) {
        assert_ne!(c.escape_debug().to_string(), c.to_string(), "{:x}", c as u32);
    }
}

#[test]
fn of_many_things_the_first_few_are_named() {
    assert_eq!(few(Vec::<u8>::new(), ", "), "");
    assert_eq!(few(["a"], ", "), "a");
    assert_eq!(few(["a", "b", "c", "d", "e"], " and "), "a and b and c and d and e");
    assert_eq!(few(["a", "b", "c", "d", "e", "f"], ", "), "a, b, c and 3 more");
    // No more of them are made.
    let asked = std::cell::Cell::new(0);
    let things = (0..20_000_usize).inspect(|_| asked.set(asked.get() + 1));
    assert_eq!(few(things, "; "), "0; 1; 2 and 19,997 more");
    assert_eq!(asked.get(), 3);
    for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), text);
    }
}

#[test]
fn of_a_long_message_the_middle_is_left_out() {
    let longest = "x".repeat(MESSAGE_BYTES_MAX);
    assert_eq!(shortened(&longest), longest);
    // Two bytes each: a cut falls between them.
    let long = format!("invalid value '{}'; try this", "é".repeat(100_000));
    let text = shortened(&long);
    assert!(text.starts_with("invalid value 'éé") && text.ends_with("éé'; try this"), "{text}");
    assert!(text.contains("é … (198,5") && text.contains(" bytes) … é"), "{text}");
    assert!(text.len() < MESSAGE_BYTES_MAX + 50, "{}", text.len());
}

#[test]
fn times_in_words() {
    for (ms, words) in [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_050, "1.0 s"),
        (59_999, "59.9 s"),
        (61_000, "1 min 1 s"),
        (3_660_000, "1 h 1 min"),
        (90_000_000, "1 d 1 h"),
    ] {
        assert_eq!(in_words(Duration::from_millis(ms)), words);
    }
}

#[cfg(feature = "cli")]
#[test]
fn json_is_spelled_out_and_says_the_same() {
    let misleading = "a\u{7f}\u{85}\u{9b}31m\u{2028}\u{202e}\u{e0041}z\u{1f512}ä";
    let plain = serde_json::to_string(&[misleading]).unwrap();
    let spelled = spelled_out(&plain);
    assert_eq!(spelled, "[\"a\\u007f\\u0085\\u009b31m\\u2028\\u202e\\udb40\\udc41z\u{1f512}ä\"]");
    assert_eq!(serde_json::from_str::<Vec<String>>(&spelled).unwrap(), [misleading]);
}

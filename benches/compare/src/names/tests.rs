use super::*;

#[test]
fn table_has_a_column_for_each_number_and_says_how_much_it_grows() {
    let of = |what, at, value| Measure { what, at, value, unit: Unit::Ns };
    let measures: Vec<Measure> =
        [(10, 700.0), (1_000, 720.0), (100_000, 1_000.0), (1_000_000, 1_400.0)]
            .into_iter()
            .flat_map(|(at, value)| TITLES.map(|(what, _)| of(what, at, value)))
            .collect();
    let text = table(&measures);
    assert_eq!(text.lines().count(), 1 + TITLES.len(), "{text}");
    let any = text.lines().find(|line| line.starts_with("  lock any ")).expect(&text);
    assert!(any.contains("1.4 µs") && any.ends_with("2.0 ×"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    assert_eq!(table(&[]), "");
}

use super::*;

#[test]
fn counts_stand_beside_those_of_what_nothing_observes() {
    let counted = [
        Counted { of: Part::Leader, subject: PLAIN, each: 10_000.0 },
        Counted { of: Part::Leader, subject: "leader: metrics, log", each: 10_070.0 },
    ];
    let line = "  leader   nothing observed 10000   leader: metrics, log 10070 (+0.7 %)\n";
    assert!(text(&counted).contains(line), "{}", text(&counted));
    assert_eq!(text(&[]), "");
}

#[test]
fn of_each_part_the_plain_pair_is_counted_first_and_none_that_changes_the_other_part() {
    let of = |part| SUBJECTS.iter().filter(move |subject| subject.is_counted(part));
    for part in [Part::Leader, Part::Client] {
        assert_eq!(of(part).next().map(|subject| subject.text), Some(PLAIN));
    }
    assert_eq!((of(Part::Leader).count(), of(Part::Client).count()), (2, 3));
}

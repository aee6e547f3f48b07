use super::*;

fn chosen(probability: f64, own: usize) -> [u32; 5] {
    let (mut dice, wants) = (Dice::new(7), own_or_others(probability, 4));
    let mut chosen = [0; 5];
    (0..10_000).for_each(|_| chosen[wants(own, &mut dice)] += 1);
    chosen
}

#[test]
fn others_names_are_wanted_as_often_as_was_said_and_each_alike() {
    assert_eq!(chosen(0.0, 2), [0, 0, 10_000, 0, 0]);
    let all = chosen(1.0, 2);
    assert_eq!((all[2], all[4]), (0, 0));
    for other in [0, 1, 3] {
        assert!((3_000..3_700).contains(&all[other]), "{all:?}");
    }
    let few = chosen(0.01, 2);
    assert!((9_800..9_970).contains(&few[2]), "{few:?}");
}

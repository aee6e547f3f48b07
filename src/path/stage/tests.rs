use super::*;

fn leader(number: u64) -> ElectedLeader {
    ElectedLeader::new(Token::new(number).unwrap(), number.to_le_bytes().as_slice().into())
}

#[test]
fn an_observer_that_is_far_behind_misses_the_oldest_changes_and_never_their_order() {
    let stage = ElectionStage::new();
    assert_eq!(stage.present(), (None, 0));
    for number in 1..=3 {
        stage.enter(leader(number));
        stage.leave(Token::new(9).unwrap()); // another's, and no change
        stage.leave(leader(number).token());
    }
    let told: Vec<_> = (0..6).map(|number| stage.change(number).unwrap().0).collect();
    let expected = [1, 2, 3].map(|number| [Some(leader(number)), None]).concat();
    assert_eq!(told, expected);
    assert_eq!(stage.change(6), None);
    for number in 4..=CHANGES_KEPT as u64 {
        stage.enter(leader(number));
    }
    let (oldest, number) = stage.change(0).unwrap();
    assert_eq!((oldest, number), (None, 3));
}

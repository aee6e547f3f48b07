use super::*;

fn told_by(lines: &[(usize, &str)]) -> Told {
    let heard = Heard::of(2);
    for &(number, line) in lines {
        heard.hear(number, line.into());
    }
    heard.told.into_inner().unwrap()
}

#[test]
fn the_highest_epoch_says_which_leader_reigns_however_late_a_line_is_read() {
    let told = told_by(&[
        (1, "listening on 127.0.0.1:1"),
        (1, "tierlock: it reigns from now on, in epoch 5"),
        (0, "tierlock: it reigns from now on, in epoch 4"),
        (0, "tierlock: it stands by: 127.0.0.1:1 reigns, in epoch 5"),
    ]);
    assert_eq!(told.reigning, Some((5, 1)));
    assert!(told.of[0].stands_by && !told.of[0].listens);
    assert!(told.of[1].listens && !told.of[1].stands_by);
}

#[test]
fn a_leader_that_ends_is_waited_for_no_longer() {
    let heard = Heard::of(1);
    heard.hear(0, "tierlock: the disk is full".into());
    heard.ended(0);
    let failure = heard.until("does not reign", 0, |told| told.reigning.is_some()).unwrap_err();
    assert!(failure.to_string().contains("the disk is full"), "{failure}");
}

#[test]
fn a_proof_is_read_of_the_one_that_reigns() {
    let status = serde_json::json!({"leaders": [
        {"rank": "stands by", "reign_lasts_ms": 400, "journal_us": null},
        {"rank": "reigns", "reign_lasts_ms": 400, "journal_us": 1_500},
    ]});
    let lasts = Some(Duration::from_millis(400));
    assert_eq!(proof(&status), Proof { lasts, took: Some(Duration::from_micros(1_500)) });
    assert_eq!(proof(&serde_json::json!({"leaders": []})), Proof::default());
}

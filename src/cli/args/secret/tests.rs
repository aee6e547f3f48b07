use super::*;

#[test]
fn a_date_is_a_day_or_a_time() {
    let seconds = |text| {
        let since = date(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_secs()
    };
    assert_eq!(seconds("2027-01-31"), 1_801_353_600);
    assert_eq!(seconds("2027-01-31T01:00:00Z"), 1_801_353_600 + 3_600);
    assert_eq!(seconds("2027-01-31T01:00:00+01:00"), 1_801_353_600);
    for wrong in ["", "2027", "31.1.2027", "2027-02-30", "2027-01-31T12:00", "tomorrow"] {
        assert!(date(wrong).is_err(), "{wrong}");
    }
}

use super::*;

#[test]
fn options_are_read() {
    let line = "compare --scope process --seconds 2 --json --plot out.svg";
    let args = Args::try_parse_from(line.split(' ')).unwrap();
    assert_eq!(args.scope, Some(Scope::Process));
    assert_eq!(args.seconds, Some(2.0));
    assert!(args.json);
    assert_eq!(args.plot, Some("out.svg".into()));
    assert!(Args::try_parse_from(["compare", "--observing", "--json"]).unwrap().observing);
    assert!(Args::try_parse_from(["compare", "--observing", "--modes"]).is_err());
    let leaders = Args::try_parse_from(["compare", "--leaders", "--kills", "200"]).unwrap();
    assert!(leaders.leaders && leaders.kills == 200);
    assert!(Args::try_parse_from(["compare", "--leaders"]).unwrap().kills > 0);
    assert!(Args::try_parse_from(["compare", "--leaders", "--kills", "0"]).is_err());
    assert!(Args::try_parse_from(["compare", "--leaders", "--observing"]).is_err());
    assert!(Args::try_parse_from(["compare", "--kills", "3"]).is_err(), "of leaders alone");
    assert!(Args::try_parse_from(["compare", "--scope", "galaxy"]).is_err());
    assert!(Args::try_parse_from(["compare", "--scale=3"]).is_err());
}

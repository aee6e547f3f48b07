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
    assert!(Args::try_parse_from(["compare", "--scope", "galaxy"]).is_err());
    assert!(Args::try_parse_from(["compare", "--scale=3"]).is_err());
}

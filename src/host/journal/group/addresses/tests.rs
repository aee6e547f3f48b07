use super::*;

const THREE: &str = "a=10.0.0.1:7420,b=db.example:7421, c=[::1]:7422";

fn group(text: &str) -> GroupAddresses {
    text.parse().unwrap()
}

fn refused(text: &str) -> String {
    text.parse::<GroupAddresses>().unwrap_err().to_string()
}

#[test]
fn a_group_is_written_as_it_is_read() {
    let group = group(THREE);
    assert_eq!(group.to_string(), "a=10.0.0.1:7420,b=db.example:7421,c=[::1]:7422");
    assert_eq!(group.all(), ["10.0.0.1:7420", "db.example:7421", "[::1]:7422"]);
    assert_eq!(group.to_string().parse::<GroupAddresses>().unwrap(), group);
}

#[test]
fn what_is_no_group_is_refused_in_words() {
    for (text, words) in [
        ("", "has no ="),
        ("a=1.1.1.1", "1 member"),
        ("a=1.1.1.1,b=1.1.1.2", "3 (one may fail) or 5"),
        ("a=1.1.1.1,b=1.1.1.2,c=1.1.1.3,d=1.1.1.4", "4 members"),
        ("a=1.1.1.1,a=1.1.1.2,c=1.1.1.3", "the ID a is there twice"),
        ("a=1.1.1.1,b=1.1.1.1:7420,c=1.1.1.3", "the address 1.1.1.1:7420 is there twice"),
        ("a=1.1.1.1,b b=1.1.1.2,c=1.1.1.3", "is no ID"),
        ("a=1.1.1.1,=1.1.1.2,c=1.1.1.3", "is no ID"),
        ("a=1.1.1.1,b=1.1.1.2:0:0,c=1.1.1.3", "invalid address"),
    ] {
        let error = refused(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_member_is_the_one_that_listens_there_or_that_it_is_said_to_be() {
    let group = group(THREE);
    let own = |said, listen: &str| group.own(said, &listen.parse().unwrap());
    let name = |name| MemberName::new(name);
    assert_eq!(own(None, "10.0.0.1").unwrap(), name("a"));
    assert_eq!(own(Some("a"), "10.0.0.1:7420").unwrap(), name("a"));
    assert_eq!(own(Some("b"), ":7421").unwrap(), name("b"));
    assert!(own(None, ":7420").unwrap_err().to_string().contains("--member"));
    assert!(own(Some("d"), ":7420").unwrap_err().to_string().contains("no member"));
    assert!(own(Some("b"), "10.0.0.1:7420").unwrap_err().to_string().contains("is where"));
}

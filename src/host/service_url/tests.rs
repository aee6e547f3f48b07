use super::*;

fn refused(text: &str) -> String {
    let error = ServiceUrl::parse(text).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), crate::error::LockErrorKind::Config);
    error.to_string()
}

#[test]
fn every_part_of_a_service_is_read() {
    let mut url =
        ServiceUrl::parse("redis://shop:p%40ss@10.0.0.1:6380,h/3?as=plain&prefix=a%2Fb&x").unwrap();
    assert_eq!(url.kind, ServiceKind::Redis);
    assert_eq!(url.addresses, ["10.0.0.1:6380", "h"]);
    assert_eq!(url.user.as_deref(), Some("shop"));
    assert_eq!(url.password.as_ref().unwrap().reveal(), "p@ss");
    assert_eq!(url.path, "3");
    assert_eq!(url.take("prefix").unwrap().as_deref(), Some("a/b"));
    assert!(url.take_switch("x").unwrap());
    assert!(
        url.finish("prefix").unwrap_err().to_string().contains("\"as\": the options are prefix")
    );
    assert_eq!(url.take("as").unwrap().as_deref(), Some("plain"));
    url.finish("as").unwrap();
}

#[test]
fn what_cannot_be_meant_is_refused() {
    assert!(refused("10.0.0.1").contains("`://` is missing"));
    assert!(refused("consul://h").contains("one of tierlock, etcd, mysql, "));
    assert!(refused("consul://h").contains(", zookeeper"));
    assert!(refused("redis://").contains("an address is empty"));
    assert!(refused("redis://a,,b").contains("an address is empty"));
    assert!(refused("tierlocks://a").contains("is encrypted always"));
    assert!(refused("postgress://a").contains("?sslmode=verify-full"));
    let mut twice = ServiceUrl::parse("redis://h?as=plain&as=hash").unwrap();
    assert!(twice.take("as").is_err());
}

/// Nothing that is shown of a service holds its password, whatever is wrong with it.
#[test]
fn no_text_about_a_service_shows_its_password() {
    let url = ServiceUrl::parse("redis://u:hunter2@h:1/0?as=nonsense").unwrap();
    let shown = [format!("{url:?}"), url.shown(), url.refuse("x").to_string()];
    for text in shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
    for text in ["u:hunter2@h", "redis//u:hunter2@h", "redis://u:hunter2@,", "nosql://u:hunter2@h"]
    {
        assert!(!refused(text).contains("hunter2"));
    }
    assert!(!format!("{:?}", Password("hunter2".into())).contains("hunter2"));
}

#[test]
fn tls_is_said_by_the_scheme_or_by_postgres_own_option() {
    let secured = |text: &str| ServiceUrl::parse(text).unwrap().is_secured();
    for text in ["etcd://h", "postgres://h/d", "postgres://h/d?sslmode=disable", "redis://h"] {
        assert!(!secured(text).unwrap(), "{text}");
    }
    for text in [
        "etcds://h",
        "postgres://h/d?sslmode=verify-full",
        "rediss://h",
        "redlocks://a,b,c",
        "mysqls://h/d",
        "shedlock+mysqls://h/d",
        "zookeepers://h",
    ] {
        assert!(secured(text).unwrap(), "{text}");
    }
    // Weaker ones check no name, and so prove nothing.
    for text in
        ["postgres://h?sslmode=require", "postgres://h?sslmode=verify-ca", "etcd://h?sslmode=x"]
    {
        assert!(secured(text).is_err(), "{text}");
    }
    let url = ServiceUrl::parse("etcds://u:hunter2@h:1,i").unwrap();
    assert_eq!((url.kind, url.shown().as_str()), (ServiceKind::Etcd, "etcds://h:1,i"));
}

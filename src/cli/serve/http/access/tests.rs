use super::*;

fn asks(hosts: &[&str], line: &str) -> Request<()> {
    let request = hosts.iter().fold(Request::get(line), |made, host| made.header("Host", *host));
    request.body(()).unwrap()
}

#[test]
fn a_request_for_the_host_of_another_site_is_told_apart() {
    let names = ["locks.example".to_owned()];
    let is_own = |host| is_own_host(&asks(&[host], "/"), &names);
    for host in [
        "127.0.0.1",
        "127.0.0.1:7420",
        "10.1.2.3",
        "[::1]",
        "[::1]:80",
        "localhost",
        "LocalHost:7420",
        "Locks.Example:443",
    ] {
        assert!(is_own(host), "{host}");
    }
    for host in [
        "",
        "evil.example",
        "evil.example:7420",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "127.0.0.1:",
        "127.0.0.1:80x",
        "127.0.0.1:80:90",
        "[::1]x",
        "[evil.example]",
        "[::1",
        "::1",
        "locks.example.",
    ] {
        assert!(!is_own(host), "{host}");
    }
    // None, two, and one that its own line contradicts.
    assert!(!is_own_host(&asks(&[], "/"), &names));
    assert!(!is_own_host(&asks(&["localhost", "localhost"], "/"), &names));
    assert!(!is_own_host(&asks(&["localhost"], "http://evil.example/"), &names));
    assert!(is_own_host(&asks(&["localhost"], "http://localhost:7420/"), &names));
}

#[test]
fn a_token_is_the_whole_of_what_follows_bearer() {
    let token = HttpToken::new(b"0123456789abcdef").unwrap();
    let bears = |values: &[&str]| {
        let request = values
            .iter()
            .fold(Request::get("/"), |made, value| made.header("Authorization", *value));
        token.is_in(&request.body(()).unwrap())
    };
    assert!(bears(&["Bearer 0123456789abcdef"]));
    assert!(bears(&["bearer 0123456789abcdef"]));
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer 0123456789abcde",
        "Bearer 0123456789abcdef0",
        "Bearer 0123456789abcdeF",
        "Basic 0123456789abcdef",
        "0123456789abcdef",
    ] {
        assert!(!bears(&[wrong]), "{wrong}");
    }
    assert!(!bears(&[]));
    assert!(!bears(&["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"]));
}

#[test]
fn a_token_file_is_one_long_enough_line() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &[u8]| {
        use std::os::unix::fs::PermissionsExt as _;
        let file = folder.path().join("token");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        HttpToken::read(&file, &folder.path().join("none")).is_ok()
    };
    assert!(read(b"0123456789abcdef\n") && read(b"0123456789abcdef"));
    assert!(read(&[b'x'; 512]) && !read(&[b'x'; 513]));
    assert!(!read(b"0123456789abcde\n") && !read(b"") && !read(b"0123456789abcdef\n\n"));
    assert!(!read(b"0123456789 abcdef\n") && !read("0123456789äbcdef".as_bytes()));
}

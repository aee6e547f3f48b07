use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn children(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_name_is_one_node_and_is_found_again_by_it() {
    let names = ["a", "a/b", "a%2Fb", "/a", "a/", ".", "..", "日本", "\u{e000}x\u{ffff}", "a b"];
    let paths = NodePaths::new("locks/eu", false);
    let mut seen = std::collections::HashSet::new();
    for text in names {
        let path = paths.of(&name(text)).unwrap();
        assert_eq!(path.matches('/').count(), 3, "{path}");
        assert_eq!(paths.name_of(&path), Some(name(text)));
        assert!(seen.insert(path));
    }
    assert_eq!(paths.of(&name("a/b")).unwrap(), "/locks/eu/a%2Fb");
    assert_eq!(paths.of(&name("zookeeper")).unwrap(), "/locks/eu/zookeeper");
}

#[test]
fn slashes_are_folders_where_a_site_has_them() {
    let paths = NodePaths::new("", true);
    assert_eq!(paths.of(&name("orders/42")).unwrap(), "/orders/42");
    assert_eq!(paths.name_of("/orders/42"), Some(name("orders/42")));
    assert_eq!(paths.of(&name("a/../b")).unwrap(), "/a/%2E%2E/b");
    for refused in ["/a", "a/", "a//b", "zookeeper", "zookeeper/quota"] {
        assert!(paths.of(&name(refused)).is_err(), "{refused}");
    }
    assert!(NodePaths::new("", false).of(&name("zookeeper")).is_err());
}

#[test]
fn a_queue_is_in_the_order_of_its_numbers_whatever_its_ids() {
    let found = children(&[
        "_c_0b-lock-0000000012",
        "_c_ff-lock-0000000007",
        "_c_00-lock-0000000009",
        "folder",
        "block-5",
    ]);
    let queue = NodeForm::Mutex.queue(&name("a"), &found).unwrap();
    let numbers: Vec<i64> = queue.iter().map(|node| node.sequence).collect();
    assert_eq!(numbers, [7, 9, 12]);
    assert_eq!(place_of(&queue, "_c_ff-lock-0000000007"), PlaceInQueue::First);
    assert_eq!(place_of(&queue, "_c_0b-lock-0000000012"), PlaceInQueue::Behind(&queue[1]));
    assert_eq!(place_of(&queue, "_c_aa-lock-0000000008"), PlaceInQueue::NotThere);
}

#[test]
fn a_reader_waits_for_the_last_writer_before_it_and_a_writer_for_all() {
    let found = children(&[
        "_c_1-__READ__0000000001",
        "_c_2-__WRIT__0000000002",
        "_c_3-__READ__0000000003",
        "_c_4-__WRIT__0000000004",
        "_c_5-__READ__0000000005",
        "_c_6-__READ__0000000006",
    ]);
    let queue = NodeForm::ReadWrite.queue(&name("a"), &found).unwrap();
    let behind = |own: usize| match place_of(&queue, &queue[own].child) {
        PlaceInQueue::First => None,
        PlaceInQueue::Behind(node) => Some(node.sequence),
        PlaceInQueue::NotThere => panic!("it is not there"),
    };
    assert_eq!([0, 1, 2, 3, 4, 5].map(behind), [None, Some(1), Some(2), Some(3), Some(4), Some(4)]);
    assert_eq!(place_of(&queue[5..], &queue[5].child), PlaceInQueue::First, "readers share");
}

#[test]
fn a_name_that_is_used_as_another_kind_of_lock_is_refused() {
    let said = |form: NodeForm, child: &str| {
        let error = form.queue(&name("a"), &children(&[child])).unwrap_err();
        error.to_string()
    };
    let text = said(NodeForm::Mutex, "_c_1-__READ__0000000001");
    assert!(
        text.contains("?as=read-write") && text.contains("read-write lock of Curator"),
        "{text}"
    );
    let text = said(NodeForm::ReadWrite, "_c_1-lock-0000000001");
    assert!(text.contains("leave `?as=read-write` out"), "{text}");
    let text = said(NodeForm::Mutex, "5d2a__lock__0000000001");
    assert!(text.contains("kazoo"), "{text}");
    let text = said(NodeForm::Mutex, "n_0000000001");
    assert!(text.contains("n_0000000001"), "{text}");
    // The counter of a node is a number of 32 bits with a sign.
    let text = said(NodeForm::Mutex, "_c_1-lock--2147483648");
    assert!(text.contains("used up"), "{text}");
}

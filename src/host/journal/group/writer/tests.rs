use super::*;

fn vote(term: u64) -> GroupWrite {
    GroupWrite::Vote { term, voted_for: None }
}

#[test]
fn nothing_of_an_earlier_disk_gets_to_the_one_that_it_has_become() {
    let place = tempfile::tempdir().unwrap();
    let disk = GroupDisk::make(place.path()).unwrap();
    let old = disk.id();
    let mail = Arc::new(GroupMail::new(Arc::new(|_| {})).unwrap());
    let writer = DiskWriter::start(disk, mail.clone()).unwrap();
    writer.write(old, WriteId(1), vote(1));
    writer.become_another();
    // The machine of the old disk does not know yet.
    writer.write(old, WriteId(2), vote(2));
    drop(writer);
    let news = mail.take().stored;
    let [StoredNews::Durable(of, WriteId(1)), StoredNews::Another(new)] = news[..] else {
        panic!("it says something else");
    };
    assert!(of == old && new != old);
    let (disk, stored) = GroupDisk::open(place.path(), false).unwrap();
    assert_eq!((disk.id(), stored), (new, None));
}

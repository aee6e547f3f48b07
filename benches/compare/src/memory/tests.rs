use super::*;

#[test]
fn memory_is_limited_by_the_system_and_by_every_group_above() {
    assert_eq!(available_of("MemFree: 7 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
    assert_eq!(available_of(""), None);
    let groups: Vec<_> = groups_of("0::/a/b\n").collect();
    assert_eq!(
        groups,
        ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"].map(PathBuf::from)
    );
    assert!(available() > 0);
}

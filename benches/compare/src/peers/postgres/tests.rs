use super::*;

#[test]
fn accounts_are_read_by_their_whole_name() {
    let accounts = "root:x:0:0:root:/root:/bin/sh\npostgres:x:104:107:,,,:/var/lib:/bin/bash\n";
    assert_eq!(account(accounts, "postgres"), Some((104, 107)));
    assert_eq!(account(accounts, "post"), None);
    assert_eq!(account("broken:x:here\n", "broken"), None);
}

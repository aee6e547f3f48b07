//! `tierlock doctor`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
};

use tierlock::{Engine, LockManager, Scope};

use super::*;
use crate::setting::Rig;

const BOTH: [Engine; 2] = [Engine::Table, Engine::FileLock];

/// A directory in which one name was used, by a process that is still there.
struct Ward {
    place: Place,
    _locks: LockManager,
}

impl Ward {
    fn new(engine: Engine) -> Ward {
        Ward::with_mode(engine, 0o700)
    }

    fn with_mode(engine: Engine, mode: u32) -> Ward {
        let place = Place::new();
        fs::create_dir(place.dir()).unwrap();
        fs::set_permissions(place.dir(), PermissionsExt::from_mode(mode)).unwrap();
        let locks = LockManager::builder().directory(place.dir()).engine(engine).open().unwrap();
        drop(locks.mutex("orders/42", ()).lock().unwrap());
        Ward { place, _locks: locks }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.dir().join(name)
    }

    /// The one presence there is.
    fn presence(&self) -> PathBuf {
        let mut found = fs::read_dir(self.file("presence")).unwrap();
        found.next().unwrap().unwrap().path()
    }

    /// Some file of the locks themselves.
    fn lock_file(&self, engine: Engine) -> PathBuf {
        self.file(if engine == Engine::Table { "table" } else { "locks/orders%2f42" })
    }

    #[track_caller]
    fn finds(&self, status: i32, level: &str, words: &[&str]) -> String {
        examined(doctor(&self.place.dir()), status, level, words)
    }
}

fn doctor(directory: &Path) -> Command {
    let mut command = tierlock(&["doctor", "--dir"]);
    command.arg(directory);
    command
}

/// It exits so, and one line of this level holds all of `words`.
#[track_caller]
fn examined(mut command: Command, status: i32, level: &str, words: &[&str]) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}{output:?}");
    let is_it =
        |line: &str| line.starts_with(level) && words.iter().all(|word| line.contains(word));
    assert!(text.lines().any(is_it), "no {level} with {words:?} in\n{text}");
    match status {
        0 => assert_eq!(output.stderr, b""),
        _ => assert!(the_one_line(&output.stderr).contains("nothing was repaired")),
    }
    text
}

/// Everything in a directory, to be compared.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        }
        let bytes = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
        found.insert(path, bytes);
    }
    found
}

#[test]
fn a_sound_directory_in_use_is_left_as_it_is() {
    for (engine, format) in [(Engine::Table, "table 3"), (Engine::FileLock, "file-lock 1")] {
        let ward = Ward::new(engine);
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::script(&mut ward.place.run(), &[], "job", script);
        assert_eq!(holder.line(), "holding");
        let before = contents(&ward.place.dir());
        let text = ward.finds(0, "ok", &["its format is", &format!("tierlock {format}")]);
        assert!(text.contains("2 names, 1 of them held"), "{text}");
        assert!(!text.contains("trouble") && !text.contains("damage"), "{text}");
        assert_eq!(contents(&ward.place.dir()), before);
        fails(&ward.place.ran(&["-n", "job", "--", "true"]), 75, &["job"]);
    }
}

#[test]
fn what_is_not_there_is_not_made() {
    let place = Place::new();
    fails(&doctor(&place.dir()).output().unwrap(), 78, &["does not exist"]);
    assert!(!place.dir().exists());
    fs::create_dir(place.dir()).unwrap();
    examined(doctor(&place.dir()), 0, "note", &["has not been used"]);
    assert_eq!(contents(&place.dir()).len(), 0);
    fails(&doctor(Path::new("/dev/null")).output().unwrap(), 78, &["not a directory"]);
    fails(&tierlock(&["doctor"]).output().unwrap(), 78, &["--dir"]);
}

#[test]
fn a_format_that_is_not_ours_is_told() {
    for engine in BOTH {
        let ward = Ward::new(engine);
        for (format, status, level) in [
            ("tierlock table 99\n", 78, "trouble"),
            ("tierlock quantum 1\n", 78, "trouble"),
            ("hello\n", 74, "damage"),
            ("", 74, "damage"),
        ] {
            fs::write(ward.file("format"), format).unwrap();
            ward.finds(status, level, &["format"]);
        }
        fs::remove_file(ward.file("format")).unwrap();
        ward.finds(74, "damage", &["its file format is missing"]);
        symlink("elsewhere", ward.file("format")).unwrap();
        ward.finds(74, "damage", &["symbolic link"]);
    }
}

/// cargo#4629: a file system with unknown locks.
#[test]
fn a_file_system_that_is_not_trusted_is_told() {
    if !Path::new("/sys/fs").is_dir() {
        return eprintln!("SKIPPED: no /sys");
    }
    examined(doctor(Path::new("/sys/fs")), 78, "trouble", &["file system", "0x62656572"]);
}

#[test]
fn rights_that_let_in_too_many_or_too_few_are_told_with_the_way_out() {
    for engine in BOTH {
        Ward::with_mode(engine, 0o777).finds(78, "trouble", &["0777", "chmod +t"]);
        Ward::with_mode(engine, 0o1777).finds(0, "note", &["1777", "reboot"]);
        for (mode, wrong, wanted) in [(0o770, 0o600, "0660"), (0o755, 0o666, "0644")] {
            let ward = Ward::with_mode(engine, mode);
            let mut files = vec![ward.file("format"), ward.lock_file(engine)];
            if engine == Engine::Table {
                files.extend([ward.file("tokens"), ward.presence()]);
            }
            for file in files {
                let before = fs::metadata(&file).unwrap().permissions();
                fs::set_permissions(&file, PermissionsExt::from_mode(wrong)).unwrap();
                let path = file.to_str().unwrap();
                ward.finds(78, "trouble", &[&format!("chmod {wanted} {path}")]);
                fs::set_permissions(&file, before).unwrap();
                ward.finds(0, "ok", &["its mode"]);
            }
        }
    }
}

#[test]
fn a_directory_of_others_is_told() {
    for engine in BOTH {
        let ward = Ward::with_mode(engine, 0o755);
        if fs::metadata(ward.place.dir()).unwrap().uid() != 0 {
            return eprintln!("SKIPPED: only root can become another user");
        }
        fs::set_permissions(ward.place.root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let copy = ward.place.path("tierlock");
        copy_program(&copy);
        let other_user = || {
            let mut command = program(&copy);
            command.args(["doctor", "--dir"]).arg(ward.place.dir()).uid(65534).gid(65534);
            command
        };
        examined(other_user(), 78, "trouble", &["this user may not take its locks"]);
        fs::set_permissions(ward.place.dir(), PermissionsExt::from_mode(0o700)).unwrap();
        fails(&other_user().output().unwrap(), 77, &["cannot open it"]);
        // Files that another group has.
        fs::set_permissions(ward.place.dir(), PermissionsExt::from_mode(0o770)).unwrap();
        ward.finds(78, "trouble", &["chmod 0660"]);
        fs::set_permissions(ward.file("format"), PermissionsExt::from_mode(0o660)).unwrap();
        std::os::unix::fs::chown(ward.file("format"), None, Some(65534)).unwrap();
        ward.finds(78, "trouble", &["format belongs to group 65534", "chgrp 0"]);
    }
}

#[test]
fn what_is_not_ours_is_told() {
    for engine in BOTH {
        let ward = Ward::new(engine);
        fs::write(ward.file("notes\n.txt"), "hello").unwrap();
        ward.finds(78, "trouble", &["notes", "is not tierlock's"]);
        fs::remove_file(ward.file("notes\n.txt")).unwrap();
        // Left by one that died while making a file; of today's it is not known that its maker died.
        let aside = ward.file(".table-0123456789abcdef");
        fs::write(&aside, "half").unwrap();
        assert!(!ward.finds(0, "ok", &[]).contains("0123456789abcdef"));
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&aside).unwrap().set_modified(long_ago).unwrap();
        ward.finds(0, "note", &["0123456789abcdef", "died"]);
    }
    let ward = Ward::new(Engine::Table);
    fs::write(ward.file("presence/readme"), "hello").unwrap();
    ward.finds(78, "trouble", &["presence/readme"]);
    let ward = Ward::new(Engine::FileLock);
    fs::write(ward.file("locks/readme"), "hello").unwrap();
    ward.finds(74, "damage", &["locks/readme", "5 bytes"]);
}

#[test]
fn of_many_things_of_one_kind_some_are_told_and_the_others_counted() {
    let ward = Ward::new(Engine::Table);
    (0..100).for_each(|number| fs::write(ward.file(&format!("{number}.txt")), "").unwrap());
    let text = ward.finds(78, "trouble", &["80 more"]);
    assert!(text.lines().count() < 40, "{text}");
}

#[test]
fn damaged_files_are_told_and_stay_as_they_are() {
    for engine in BOTH {
        let ward = Ward::new(engine);
        let file = ward.lock_file(engine);
        let whole = fs::read(&file).unwrap();
        let mut other = whole.clone();
        other[..8].fill(0xff);
        for content in [&b"hello"[..], &whole[..whole.len() / 2 - 100], &other] {
            fs::write(&file, content).unwrap();
            ward.finds(74, "damage", &[file.to_str().unwrap()]);
            assert_eq!(fs::read(&file).unwrap(), content);
        }
        fs::remove_file(&file).unwrap();
        symlink("elsewhere", &file).unwrap();
        ward.finds(74, "damage", &[file.to_str().unwrap(), "symbolic link"]);
    }
}

#[test]
fn a_table_or_its_directory_that_is_gone_is_told() {
    let ward = Ward::new(Engine::Table);
    fs::remove_file(ward.file("table")).unwrap();
    ward.finds(74, "damage", &["its table was removed", "1 process"]);
    fs::remove_file(ward.presence()).unwrap();
    ward.finds(74, "damage", &["its table is missing"]);
    fs::remove_dir_all(ward.file("presence")).unwrap();
    ward.finds(74, "damage", &["presences was removed"]);
    let ward = Ward::new(Engine::FileLock);
    fs::remove_dir_all(ward.file("locks")).unwrap();
    ward.finds(74, "damage", &["lock files was removed"]);
}

#[test]
fn a_reserve_of_tokens_that_is_gone_or_old_is_told() {
    let ward = Ward::new(Engine::Table);
    for (content, words) in [("17\n", "old copy"), ("many\n", "does not say a token")] {
        fs::write(ward.file("tokens"), content).unwrap();
        ward.finds(74, "damage", &["tokens", words]);
    }
    fs::remove_file(ward.file("tokens")).unwrap();
    ward.finds(74, "damage", &["tokens is missing"]);
}

#[test]
fn what_the_dead_left_is_told_and_is_no_trouble() {
    for engine in BOTH {
        let ward = Ward::new(engine);
        let script = "echo holding; exec sleep 1000";
        let mut holder =
            Running::script(&mut ward.place.run(), &["--label", "export"], "job", script);
        assert_eq!(holder.line(), "holding");
        holder.child.kill().unwrap();
        holder.child.wait().unwrap();
        // The command dies after its parent.
        let died = "\"job\" is as a holder that died left it";
        eventually("the holder's end is seen", || {
            let output = doctor(&ward.place.dir()).output().unwrap();
            String::from_utf8(output.stdout).unwrap().contains(died).then_some(())
        });
        let text = ward.finds(0, "note", &[died]);
        if engine == Engine::Table {
            assert!(text.contains("a process that died, export"), "{text}");
        }
        // It was not cleaned up; the next one is told.
        ward.finds(0, "note", &[died]);
        succeeds(&ward.place.ran(&["-w", "30", "job", "--", "true"]));
        assert!(!ward.finds(0, "ok", &[]).contains(died));
    }
}

#[test]
fn an_owner_without_a_presence_is_damage() {
    let ward = Ward::new(Engine::Table);
    let guard = ward._locks.mutex("job", ()).lock().unwrap();
    let presence = ward.presence();
    fs::remove_file(&presence).unwrap();
    ward.finds(74, "damage", &["\"job\"", "has no presence file"]);
    symlink("/dev/null", &presence).unwrap();
    ward.finds(74, "damage", &["does not tell whether its process is alive"]);
    drop(guard);
}

#[test]
fn a_widened_name_is_told() {
    for engine in BOTH {
        let (ward, rig) = (Ward::new(engine), Rig::start());
        let locks = rig.builder().directory(ward.place.dir()).label("the widener").open().unwrap();
        let guard = locks.mutex("ledger", ()).scope(Scope::Host).lock().unwrap();
        let words =
            ["\"ledger\" was locked at host scope", "the widener", "held at the leader or not"];
        ward.finds(0, "note", &words);
        drop(guard);
        ward.finds(0, "note", &words);
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let ward = Ward::new(Engine::Table);
    let mut command = doctor(&ward.place.dir());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

/// What a file system cannot promise is not said at every run.
#[test]
fn a_run_in_a_directory_that_a_reboot_empties_says_nothing_of_it_and_doctor_does() {
    let Ok(volatile) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("SKIPPED: no /dev/shm to write to");
    };
    let mut run = tierlock(&["run", "--dir"]);
    let output = run.arg(volatile.path()).args(["job", "--", "true"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    examined(doctor(volatile.path()), 0, "note", &["tmpfs", "reboot"]);
}

//! Names with awkward characters.

use tierlock::{LockErrorKind, MutexGuard};

use crate::setting::{LONG, Setting, at};

/// Every two of them are different names.
fn awkward() -> Vec<String> {
    let long = "x".repeat(255);
    let few = [
        "a",
        "A",
        "a/b",
        "a%2fb",
        "a%2Fb",
        "a%252fb",
        "%",
        "%%",
        "%61",
        ".",
        "..",
        "...",
        "../a",
        "/",
        "//",
        "/etc/passwd",
        " ",
        "  ",
        " a",
        "a ",
        "ü",
        "u\u{308}",
        "Ü",
        "ß",
        "ss",
        "🔒",
        "👨‍👩‍👧",
        "\u{200b}",
        "日本",
        "a\\b",
        "a:b",
        "a*?",
        "'\"`$(x)",
        "~",
        "~a",
        "-",
        "--help",
        "CON",
        "nul.txt",
        "format",
        "locks",
        "format~",
        ".format",
        "x",
        "\u{feff}",
        "\u{ffff}",
    ];
    let mut names: Vec<_> = few.iter().map(|name| name.to_string()).collect();
    names.extend([long.clone(), "é".repeat(127), "🔒".repeat(63), long[1..].to_owned() + "y"]);
    names
}

at!(everywhere, awkward_names_are_names_of_their_own);
fn awkward_names_are_names_of_their_own(setting: &Setting) {
    let (near, far) = (setting.locks(), setting.remote());
    let mut guards = Vec::new();
    for name in awkward() {
        let mutex = setting.mutex(&near, &name, ());
        assert_eq!(mutex.name(), Some(name.as_str()));
        let guard = near.mutex(&name, ()).scope(setting.scope).try_lock();
        guards.push((guard.unwrap_or_else(|error| panic!("{name:?}: {error}")), name));
    }
    for (guard, name) in guards {
        let other = setting.mutex(&far, &name, ());
        let busy = other.try_lock_for(std::time::Duration::from_millis(1)).unwrap_err();
        assert!(busy.is_contended(), "{name:?}: {busy}");
        assert_eq!(busy.name(), Some(name.as_str()));
        assert!(other.try_lock().unwrap_err().is_contended(), "{name:?}");
        MutexGuard::unlock(guard).unwrap();
        drop(other.try_lock_for(LONG).unwrap());
    }
}

at!(everywhere, what_is_no_name_is_refused_at_every_scope);
fn what_is_no_name_is_refused_at_every_scope(setting: &Setting) {
    let locks = setting.locks();
    let held = locks.mutex("held", ()).scope(setting.scope).lock().unwrap();
    let (many, four_bytes) = ("x".repeat(256), "🔒".repeat(64));
    let bad = [
        ("", "empty"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("\t", "control"),
        ("\u{7f}", "control"),
        ("a\u{85}", "control"),
        (many.as_str(), "256 bytes"),
        (four_bytes.as_str(), "256 bytes"),
    ];
    for (name, why) in bad {
        let mutex = || locks.mutex(name, ()).scope(setting.scope);
        let errors = [
            mutex().build().map(drop).unwrap_err(),
            mutex().lock().map(drop).unwrap_err(),
            mutex().try_lock().map(drop).unwrap_err(),
            mutex().try_lock_for(LONG).map(drop).unwrap_err(),
            futures::executor::block_on(mutex().lock_async()).map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
            assert!(error.to_string().contains(why), "{error}");
            assert!(!error.to_string().contains(['\0', '\n']), "{error}");
            let source = std::error::Error::source(&error).expect("a source");
            assert!(source.is::<tierlock::InvalidName>());
        }
    }
    assert!(MutexGuard::is_valid(&held));
}

//! A settings file that many processes read, and one replaces: readers stand beside each other, and none
//! of them sees a file half written.
//!
//! In a script, the same: `tierlock run --shared settings -- cat settings.conf`, and without `--shared`
//! where it is written.
//!
//! Run it: `cargo run --example settings`

use std::{
    env,
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tierlock::{LockManager, RwLock, RwLockUpgradableReadGuard, Scope};

const ROUNDS: u32 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = env::args_os().nth(1) {
        return read(directory.as_ref());
    }
    let directory = env::temp_dir().join(format!("tierlock-settings-{}", std::process::id()));
    fs::create_dir(&directory)?;
    fs::write(directory.join("settings.conf"), "version=0\nagain=0\n")?;
    let readers: Vec<_> = (0..3)
        .map(|_| Command::new(env::current_exe()?).arg(&directory).stdin(Stdio::null()).spawn())
        .collect::<Result<_, _>>()?;
    let settings = settings(&directory)?;
    for _ in 0..ROUNDS {
        // Read beside the others first; no writer comes between the look and the change.
        let seen = settings.upgradable_read()?;
        let version = version_in(&directory)?;
        let writing = RwLockUpgradableReadGuard::upgrade(seen)?;
        let next = version + 1;
        fs::write(directory.join("settings.conf"), format!("version={next}\nagain={next}\n"))?;
        drop(writing);
    }
    for reader in readers {
        assert!(reader.wait_with_output()?.status.success(), "a reader saw a file half written");
    }
    println!("{} versions, and no reader saw half of one", version_in(&directory)?);
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// As another process.
fn read(directory: &Path) -> Result<(), Box<dyn Error>> {
    let settings = settings(directory)?;
    for _ in 0..ROUNDS {
        let _reading = settings.read()?;
        version_in(directory)?;
    }
    Ok(())
}

fn settings(directory: &Path) -> tierlock::Result<RwLock<()>> {
    let locks = LockManager::builder().directory(directory.join("locks")).open()?;
    locks.rw_lock("settings", ()).scope(Scope::Process).build()
}

/// Both lines say the same, unless the file is half written.
fn version_in(directory: &Path) -> Result<u32, Box<dyn Error>> {
    let text = fs::read_to_string(directory.join("settings.conf"))?;
    let numbers: Vec<u32> =
        text.lines().filter_map(|line| line.split_once('=')?.1.parse().ok()).collect();
    match numbers[..] {
        [one, other] if one == other => Ok(one),
        _ => Err(format!("half a file: {text:?}").into()),
    }
}

//! Stock that must not be oversold: several tills sell the last items of one shelf.
//!
//! The count stands in a file that every till reads, decides upon and writes. The lock makes the
//! three steps one. (In a database that you own, `UPDATE … SET left = left - 1 WHERE left > 0`
//! needs no lock at all; take one when the steps cross systems, as here.)
//!
//! Run it: `cargo run --example stock`

use std::{env, error::Error, fs, path::Path, process::Command};

use tierlock::{LockManager, MutexGuard, Predecessor};

const TILLS: usize = 5;
const ITEMS: u32 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(place) = env::args_os().nth(1) {
        return till(place.as_ref());
    }
    let place = env::temp_dir().join(format!("tierlock-stock-{}", std::process::id()));
    fs::create_dir(&place)?;
    fs::write(place.join("stock"), ITEMS.to_string())?;
    let tills: Vec<_> = (0..TILLS)
        .map(|_| Command::new(env::current_exe()?).arg(&place).spawn())
        .collect::<Result<_, _>>()?;
    for mut till in tills {
        assert!(till.wait()?.success());
    }
    let sold = fs::read_dir(place.join("sold"))?.count();
    println!("{TILLS} tills sold {sold} of {ITEMS} items");
    assert_eq!(sold, ITEMS as usize);
    assert_eq!(fs::read_to_string(place.join("stock"))?, "0");
    fs::remove_dir_all(place)?;
    Ok(())
}

/// Sells until nothing is left.
fn till(place: &Path) -> Result<(), Box<dyn Error>> {
    let locks = LockManager::builder().directory(place.join("locks")).label("till").open()?;
    let shelf = locks.mutex("shelf/12", ()).build()?;
    fs::create_dir_all(place.join("sold"))?;
    loop {
        let guard = shelf.lock()?;
        if MutexGuard::predecessor(&guard) != Predecessor::Clean {
            // A till died between its steps: the receipts are the truth, so count again.
            let sold = fs::read_dir(place.join("sold"))?.count() as u32;
            fs::write(place.join("stock"), (ITEMS - sold).to_string())?;
        }
        let left: u32 = fs::read_to_string(place.join("stock"))?.parse()?;
        if left == 0 {
            return Ok(());
        }
        // The receipt first: its name is unique, so that an item is never sold twice.
        fs::File::create_new(place.join("sold").join(left.to_string()))?;
        fs::write(place.join("stock"), (left - 1).to_string())?;
    }
}

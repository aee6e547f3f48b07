//! A payment made once: three machines find the same order due, one pays.
//!
//! The lock saves the work of the others; it is the bank that makes sure. It knows the order's
//! number (a unique key) and the highest fencing token, and refuses what comes late.
//!
//! Run it: `cargo run --example payment`

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs, process,
    sync::{Arc, Mutex as StdMutex},
    thread,
};

use tierlock::{Leader, LockManager, MutexGuard, Token};

/// Stands for the payment provider.
#[derive(Default)]
struct Bank {
    payments: HashMap<u64, u32>,
    highest: Token,
}

impl Bank {
    fn pay(&mut self, order: u64, cents: u32, token: Token) -> Result<(), String> {
        if token < self.highest {
            return Err(format!("token {token} is stale: {} was here", self.highest));
        }
        self.highest = token;
        match self.payments.insert(order, cents) {
            None => Ok(()),
            Some(_) => panic!("order {order} was paid twice"),
        }
    }

    fn is_paid(&self, order: u64) -> bool {
        self.payments.contains_key(&order)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let place = env::temp_dir().join(format!("tierlock-payment-{}", process::id()));
    fs::create_dir(&place)?;
    let secret = place.join("tierlock.key");
    tierlock::Secret::create(&secret)?;
    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(place.join("state"))
        .secret_file(&secret)
        .start()?;
    let bank = Arc::new(StdMutex::new(Bank::default()));

    let machines: Vec<_> = ["berlin", "tokyo", "lima"]
        .into_iter()
        .map(|label| {
            let locks = LockManager::builder()
                .leaders([leader.local_addr().to_string()])
                .secret_file(&secret)
                .label(label)
                .open()?;
            let bank = bank.clone();
            Ok(thread::spawn(move || {
                pay_due_order(&locks, &bank, label).map_err(|e| e.to_string())
            }))
        })
        .collect::<tierlock::Result<_>>()?;
    for machine in machines {
        machine.join().expect("no machine panics")?;
    }

    assert_eq!(bank.lock().unwrap().payments.len(), 1);
    leader.shutdown();
    fs::remove_dir_all(place)?;
    Ok(())
}

fn pay_due_order(
    locks: &LockManager,
    bank: &StdMutex<Bank>,
    label: &str,
) -> Result<(), Box<dyn Error>> {
    let guard = locks.mutex("payments/order-42", ()).lock()?;
    if bank.lock().unwrap().is_paid(42) {
        println!("{label}: already paid");
        return Ok(());
    }
    // `check` answers `Lost` if the lease ran out on the way here.
    let token = MutexGuard::check(&guard)?;
    bank.lock().unwrap().pay(42, 1999, token)?;
    println!("{label}: paid with token {token}");
    Ok(())
}

//! A payment made once: three machines find the same order due, one pays.
//!
//! The lock saves the work of the others; it is the bank that makes sure. It knows the order's
//! number (a unique key) and the highest fencing token, and refuses what comes late.
//!
//! Run it: `cargo run --example payment`

use std::{collections::HashMap, env, error::Error, fs, process, sync::Arc, thread};

use tierlock::{
    Leader, LockManager, MutexGuard, Token,
    fence::{Gate, Stale},
};

/// Stands for the payment provider: its books are behind a gate, which refuses stale tokens.
struct Bank {
    payments: Gate<HashMap<u64, u32>>,
}

impl Bank {
    fn pay(&self, order: u64, cents: u32, token: Token) -> Result<(), Stale> {
        let mut payments = self.payments.enter(token)?;
        let before = payments.insert(order, cents);
        assert!(before.is_none(), "order {order} was paid twice");
        Ok(())
    }

    fn is_paid(&self, order: u64, token: Token) -> Result<bool, Stale> {
        Ok(self.payments.enter(token)?.contains_key(&order))
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
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(&secret)
        .start()?;
    let bank = Arc::new(Bank { payments: Gate::new(HashMap::new()) });

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

    let bank = Arc::into_inner(bank).expect("the machines are done");
    assert_eq!(bank.payments.into_inner().len(), 1);
    leader.shutdown();
    fs::remove_dir_all(place)?;
    Ok(())
}

fn pay_due_order(locks: &LockManager, bank: &Bank, label: &str) -> Result<(), Box<dyn Error>> {
    let guard = locks.mutex("payments/order-42", ()).lock()?;
    if bank.is_paid(42, MutexGuard::token(&guard))? {
        println!("{label}: already paid");
        return Ok(());
    }
    // `check` answers `Lost` if the lease ran out on the way here, and the bank refuses the token
    // if it does between here and there.
    let token = MutexGuard::check(&guard)?;
    bank.pay(42, 1999, token)?;
    println!("{label}: paid with token {token}");
    Ok(())
}

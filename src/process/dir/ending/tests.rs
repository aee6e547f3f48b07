use std::{
    cell::Cell,
    fs,
    process::{Child, Command},
};

use super::*;

/// A process that has nothing to do with any lock.
struct Bystander(Child);

impl Bystander {
    fn new() -> Bystander {
        Bystander(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn birth(&self) -> Birth {
        let own = Birth::of_this_process().unwrap();
        let pid = self.0.id();
        Birth { pid, namespace: own.namespace, started: births::started(pid).unwrap() }
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn token(number: u64) -> Token {
    Token::new(number).unwrap()
}

fn holding(number: u64, birth: Birth) -> HolderProcess {
    let holder = Holder { token: Some(token(number)), ..Holder::default() };
    let proof = FileIdentity::made_up(number);
    HolderProcess { holder, birth: Some(birth), proof }
}

fn end(
    number: u64,
    look: impl Fn() -> Result<Option<HolderProcess>, LockError>,
) -> Result<(), LockError> {
    let order = Order { token: token(number), grace: Duration::ZERO, asked_leader: false };
    let looks = Cell::new(false);
    let look = || match looks.replace(true) {
        // The first one is for a stay.
        false => Ok(HolderState::default()),
        true => Ok(HolderState { hold: look()?, ..HolderState::default() }),
    };
    end_holder(&Name::new("a").unwrap(), order, look, || Ok(false))
}

#[test]
fn a_process_that_has_the_holders_pid_by_now_is_left_alone() {
    let mut bystander = Bystander::new();
    let birth = Birth { started: bystander.birth().started + 1, ..bystander.birth() };
    let error = end(1, || Ok(Some(holding(1, birth)))).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
    assert!(bystander.runs());
}

#[test]
fn a_holder_that_lets_go_while_it_is_looked_for_is_left_alone() {
    for after in [None, Some(2)] {
        let mut bystander = Bystander::new();
        let (birth, looks) = (bystander.birth(), Cell::new(0));
        let error = end(1, || {
            looks.set(looks.get() + 1);
            let number = if looks.get() == 1 { Some(1) } else { after };
            Ok(number.map(|number| holding(number, birth)))
        });
        assert_eq!(error.unwrap_err().kind(), LockErrorKind::Refused);
        assert_eq!(looks.get(), 2, "it is compared again");
        assert!(bystander.runs());
    }
}

#[test]
fn the_holder_is_ended_and_no_other() {
    let (mut bystander, mut holder) = (Bystander::new(), Bystander::new());
    let (birth, proof) = (holder.birth(), Cell::new(true));
    let lives = |pid: u32| births::started(pid).is_some() && !is_zombie(pid);
    end(1, || {
        proof.set(lives(birth.pid));
        Ok(proof.get().then(|| holding(1, birth)))
    })
    .unwrap();
    assert!(!holder.runs());
    assert!(bystander.runs());
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

//! Eight clients of one name between machines, 95 % of which read.

use std::{
    thread,
    time::{Duration, Instant},
};

use tierlock::{RwLock, Scope};

use crate::{
    bench::{failure::Result, progress::Progress},
    house::House,
    measure::{Measure, Unit},
    peers::{
        field::Field,
        redis::Durability,
        servers,
        shared::{EtcdRecipe, RedissonRecipe, SharedClient},
    },
};

const CLIENTS: usize = 8;
/// One in so many is a writer.
const WRITES: u64 = 20;

struct OwnClient(RwLock<()>);

impl SharedClient for OwnClient {
    fn read(&mut self) -> Result<()> {
        drop(self.0.read()?);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        drop(self.0.write()?);
        Ok(())
    }
}

pub(super) fn measure(
    field: &mut Field,
    each: Duration,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let mut pace = |what, clients: Vec<Box<dyn SharedClient + '_>>| -> Result<()> {
        progress.says(what);
        let value = together(clients, each)?;
        measures.push(Measure { what, at: CLIENTS as u64, value, unit: Unit::PerSecond });
        Ok(())
    };
    let house = House::start(field)?;
    let own = (0..CLIENTS)
        .map(|_| -> Result<Box<dyn SharedClient>> {
            let lock = house.connect()?.rw_lock("mixed", ()).scope(Scope::Host).build()?;
            Ok(Box::new(OwnClient(lock)))
        })
        .collect::<Result<_>>()?;
    pace("remote_95_percent_readers", own)?;
    if let Some(redis) = servers::redis(&mut field.servers, &field.grounds, Durability::Nothing)? {
        let clients = (0..CLIENTS)
            .map(|number| -> Result<Box<dyn SharedClient>> {
                Ok(Box::new(RedissonRecipe::new(&redis, "mixed", number)?))
            })
            .collect::<Result<_>>()?;
        pace("remote_95_percent_readers_redis", clients)?;
    }
    let runtime = field.grounds.runtime()?;
    if let Some(etcd) = servers::etcd(&mut field.servers, &mut field.grounds)? {
        let clients = (0..CLIENTS)
            .map(|number| -> Result<Box<dyn SharedClient + '_>> {
                Ok(Box::new(EtcdRecipe::new(&etcd, &runtime, "mixed", number)?))
            })
            .collect::<Result<_>>()?;
        pace("remote_95_percent_readers_etcd", clients)?;
    }
    Ok(())
}

/// Cycles per second of all of them.
fn together(clients: Vec<Box<dyn SharedClient + '_>>, each: Duration) -> Result<f64> {
    thread::scope(|scope| {
        let begin = Instant::now();
        let end = begin + each;
        let all: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || -> Result<u64> {
                    // They do not write all at the same time.
                    let mut cycles = number as u64;
                    while Instant::now() < end {
                        match cycles % WRITES {
                            0 => client.write()?,
                            _ => client.read()?,
                        }
                        cycles += 1;
                    }
                    Ok(cycles - number as u64)
                })
            })
            .collect();
        let cycles = all
            .into_iter()
            .map(|client| client.join().expect("it does not panic"))
            .sum::<Result<u64>>()?;
        Ok(cycles as f64 / begin.elapsed().as_secs_f64())
    })
}

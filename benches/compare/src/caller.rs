//! A client for `compare --observing`, in a program of its own, so that it can be built with the library's spans
//! (feature `spans`) and without.
//!
//! `caller LEADER SECRET_FILE connections|tasks [wanted]` says `ready`. For each line of its standard input,
//! `MILLISECONDS NANOSECONDS`, it locks and unlocks for so long, works for so long beside each lock, and says how
//! often it locked. It ends with its input. `wanted`: a subscriber wants the spans.

use std::{
    error::Error,
    io::BufRead,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tierlock::{Keep, LockManager, LockManagerBuilder, Mutex, Scope};
use tokio::{runtime::Runtime, task::JoinHandle};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (leader, secret_file, kind, wanted) = match arguments[..] {
        [leader, secret_file, kind] => (leader, secret_file, kind, false),
        [leader, secret_file, kind, "wanted"] => (leader, secret_file, kind, true),
        _ => return Err("caller LEADER SECRET_FILE connections|tasks [wanted]".into()),
    };
    if wanted {
        want_spans()?;
    }
    let connect = || {
        let builder = LockManager::builder().leaders([leader]).secret_file(secret_file);
        builder.label("bench").time_to_live(Duration::from_secs(30))
    };
    let callers = match kind {
        "connections" => Callers::connections(connect)?,
        _ => Callers::tasks(connect)?,
    };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (millis, nanos) = line.trim().split_once(' ').ok_or("MILLISECONDS NANOSECONDS")?;
        let order = Order {
            slice: Duration::from_millis(millis.parse()?),
            planted: Duration::from_nanos(nanos.parse()?),
        };
        println!("{}", callers.call(order)?);
    }
    Ok(())
}

/// What is to be done.
#[derive(Clone, Copy)]
struct Order {
    slice: Duration,
    /// A loss that is to be found: for so long it works beside each lock.
    planted: Duration,
}

impl Order {
    #[inline]
    fn work(self) {
        if !self.planted.is_zero() {
            let end = Instant::now() + self.planted;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
    }
}

/// Callers with a name each. No lease is kept, so that every lock is the leader's.
enum Callers {
    /// Threads with a connection each.
    Connections(Vec<Mutex<()>>),
    /// Tasks of one connection.
    Tasks(Runtime, Vec<Arc<Mutex<()>>>),
}

const CONNECTIONS: usize = 16;
const TASKS: usize = 256;

impl Callers {
    fn connections(connect: impl Fn() -> LockManagerBuilder) -> tierlock::Result<Callers> {
        let mutexes = (0..CONNECTIONS).map(|number| mutex(&connect().open()?, number));
        Ok(Callers::Connections(mutexes.collect::<tierlock::Result<_>>()?))
    }

    fn tasks(connect: impl Fn() -> LockManagerBuilder) -> Result<Callers, Box<dyn Error>> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        let locks = connect().runtime(runtime.handle().clone()).open()?;
        let mutexes = (0..TASKS).map(|number| Ok(Arc::new(mutex(&locks, number)?)));
        let mutexes = mutexes.collect::<tierlock::Result<_>>()?;
        Ok(Callers::Tasks(runtime, mutexes))
    }

    /// How often all of them together lock and unlock in this time.
    fn call(&self, order: Order) -> tierlock::Result<u64> {
        let end = Instant::now() + order.slice;
        match self {
            Callers::Connections(mutexes) => thread::scope(|scope| {
                let call = |mutex: &Mutex<()>| {
                    let mut count = 0;
                    while Instant::now() < end {
                        drop(mutex.lock()?);
                        order.work();
                        count += 1;
                    }
                    Ok(count)
                };
                let begin = |mutex| scope.spawn(move || call(mutex));
                let threads: Vec<_> = mutexes.iter().map(begin).collect();
                threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
            }),
            Callers::Tasks(runtime, mutexes) => {
                let begin = |mutex: &Arc<Mutex<()>>| {
                    let mutex = mutex.clone();
                    runtime.spawn(async move {
                        let mut count = 0;
                        while Instant::now() < end {
                            drop(mutex.lock_async().await?);
                            order.work();
                            count += 1;
                        }
                        Ok(count)
                    })
                };
                let tasks: Vec<JoinHandle<tierlock::Result<u64>>> =
                    mutexes.iter().map(begin).collect();
                let ends = tasks.into_iter();
                ends.map(|task| runtime.block_on(task).expect("it does not panic")).sum()
            }
        }
    }
}

fn mutex(locks: &LockManager, number: usize) -> tierlock::Result<Mutex<()>> {
    locks.mutex(format!("own/{number}"), ()).scope(Scope::Host).keep(Keep::Never).build()
}

/// Has a subscriber want all spans of the library. What it does with one is its own affair, and not measured.
#[cfg(feature = "spans")]
fn want_spans() -> Result<(), Box<dyn Error>> {
    use tracing::{
        Event, Metadata, Subscriber,
        level_filters::LevelFilter,
        span::{Attributes, Id, Record},
    };

    /// Wants all, and keeps nothing: what is written for each span by all threads would be a cost of its own.
    struct SpanSink;

    impl Subscriber for SpanSink {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn max_level_hint(&self) -> Option<LevelFilter> {
            Some(LevelFilter::DEBUG)
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    Ok(tracing::subscriber::set_global_default(SpanSink)?)
}

#[cfg(not(feature = "spans"))]
fn want_spans() -> Result<(), Box<dyn Error>> {
    Err("it is built without the feature `spans`".into())
}

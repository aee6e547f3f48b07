//! What the models have in common that loom plays: one thread goes on, and others do one thing each
//! meanwhile.

use loom::{sync::Arc, thread};

/// Plays a new scene in every order of at most so many preemptions: `here` goes on, and the others do what
/// they do meanwhile. Then it is looked at.
pub(crate) fn play<S: 'static>(
    preemptions: usize,
    new: impl Fn() -> Arc<S> + Send + Sync + 'static,
    here: impl Fn(&S) + Send + Sync + 'static,
    others: &'static [fn(&S)],
    end: fn(&S),
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let scene = new();
        let begin = |act: &'static fn(&S)| {
            let scene = scene.clone();
            thread::spawn(move || act(&scene))
        };
        let others: Vec<_> = others.iter().map(begin).collect();
        here(&scene);
        others.into_iter().for_each(|other| other.join().unwrap());
        end(&scene);
    });
}

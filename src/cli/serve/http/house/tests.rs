use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tokio::task::JoinHandle;

use super::*;

fn polled<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A house without room, and the tasks of its connections.
fn full() -> (Arc<HttpHouse>, Vec<HttpPlace>, Vec<JoinHandle<()>>) {
    let house = Arc::<HttpHouse>::default();
    let places: Vec<_> = (0..CONNECTIONS_MAX).map(|_| house.place_now().unwrap()).collect();
    let tasks = places.iter().map(|place| {
        let task = tokio::spawn(std::future::pending());
        house.may_end(place.number(), task.abort_handle());
        task
    });
    let tasks = tasks.collect();
    (house, places, tasks)
}

/// Those that have said nothing, then those that do not read, in the order in which they began to be waited for.
#[tokio::test]
async fn where_there_is_no_room_the_idlest_connection_makes_some() {
    let (house, places, mut tasks) = full();
    for number in [0, 2] {
        places[number].is_asked();
        places[number].is_answered();
    }
    let mut others = Vec::new();
    for ended in (0..CONNECTIONS_MAX).filter(|number| ![0, 2].contains(number)).chain([0, 2]) {
        others.push(house.place_now().expect("one makes room"));
        let end = (&mut tasks[ended]).await;
        assert!(end.unwrap_err().is_cancelled(), "connection {ended}");
        assert_eq!(house.book.lock().connections.len(), CONNECTIONS_MAX);
    }
    // The new ones do not run yet.
    assert!(house.place_now().is_none());
}

#[tokio::test]
async fn connections_that_wait_for_the_leader_are_not_ended() {
    let (house, places, tasks) = full();
    places.iter().for_each(HttpPlace::is_asked);
    let mut waiting = pin!(house.place());
    assert!(polled(waiting.as_mut()).is_none());
    // Its answer is there, and is not read.
    places[7].is_answered();
    assert!(polled(waiting.as_mut()).is_some());
    let mut tasks = tasks.into_iter();
    assert!(tasks.nth(7).unwrap().await.unwrap_err().is_cancelled());
    assert!(tasks.all(|task| !task.is_finished()));
}

#[tokio::test]
async fn a_connection_that_is_over_makes_room_for_one() {
    let (house, mut places, tasks) = full();
    places.iter().for_each(HttpPlace::is_asked);
    let (mut first, mut second) = (pin!(house.place()), pin!(house.place()));
    assert!(polled(first.as_mut()).is_none() && polled(second.as_mut()).is_none());
    drop(places.pop());
    let places = [polled(first.as_mut()), polled(second.as_mut())];
    assert_eq!(places.iter().flatten().count(), 1);
    assert!(tasks.iter().all(|task| !task.is_finished()));
}

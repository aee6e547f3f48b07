//! A web handler under tokio: a guard may be held across `.await`, and no thread is blocked.
//!
//! The server is a bare one so that the example needs no web framework; in axum or actix the
//! handler looks the same.
//!
//! Run it: `cargo run --example web_handler`

use std::{error::Error, sync::Arc, time::Duration};

use tierlock::{LockManager, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

struct Shop {
    locks: LockManager,
    visits: Mutex<u64>,
}

/// `POST /orders/{id}`: one request at a time may work on an order.
async fn handle_order(shop: &Shop, id: u64) -> tierlock::Result<String> {
    *shop.visits.lock_async().await? += 1;
    let order = shop.locks.mutex(format!("orders/{id}"), ());
    match order.try_lock_for_async(Duration::from_secs(2)).await {
        Ok(_guard) => {
            tokio::time::sleep(Duration::from_millis(5)).await; // calls the warehouse
            Ok(format!("order {id} is on its way"))
        }
        Err(busy) if busy.is_contended() => Ok(format!("order {id}: {busy}; try again")),
        Err(error) => Err(error),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let locks = LockManager::builder().label("shop").open()?;
    let shop = Arc::new(Shop { locks, visits: Mutex::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(listener, shop.clone()));

    let requests: Vec<_> = (0..20).map(|n| tokio::spawn(request(address, n % 4))).collect();
    for request in requests {
        let answer = request.await??;
        assert!(answer.contains("is on its way"), "{answer}");
    }
    server.abort();
    println!("{} requests were served, one at a time per order", *shop.visits.lock()?);
    Ok(())
}

async fn serve(listener: TcpListener, shop: Arc<Shop>) -> std::io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let shop = shop.clone();
        tokio::spawn(async move {
            let id = stream.read_u64().await?;
            let (status, body) = match handle_order(&shop, id).await {
                Ok(body) => ("200 OK", body),
                Err(error) => ("503 Service Unavailable", error.to_string()),
            };
            stream.write_all(format!("{status}\n{body}").as_bytes()).await
        });
    }
}

async fn request(address: std::net::SocketAddr, id: u64) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_u64(id).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

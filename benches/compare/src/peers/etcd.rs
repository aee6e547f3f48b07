//! etcd, one node, through its lock API (`v3lockpb`). Every client has a lease of its own.
//!
//! The messages are written out here, over the same tonic that the crate etcd-client stands on:
//! that crate compiles its protocol files with `protoc` at every build, which a machine with only
//! a Rust toolchain does not have.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use tokio::runtime::Runtime;
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    server::{self, Become, Server, free_port},
    service::{EngineUrl, Missing, Service, of_peer},
};
use crate::bench::{
    failure::{BenchFailure, Result},
    stats::Unprotected,
    tasks,
};

const SUBJECT: &str = "etcd";
/// Longer than any run, so that no lease needs to be kept alive.
const TTL_S: i64 = 24 * 3_600;

pub(crate) struct Etcd {
    server: Server,
}

impl Etcd {
    pub(crate) fn start(directory: &Path, runtime: &Runtime) -> Result<Etcd, Missing> {
        let missing = Missing::new("etcd", "etcd-server");
        let program = server::find("etcd").ok_or(missing.clone())?;
        let directory = directory.display().to_string();
        let peers_port = free_port().map_err(missing.because())?;
        let server = Server::start(|port| {
            let clients = format!("http://127.0.0.1:{port}");
            let peers = format!("http://127.0.0.1:{peers_port}");
            let arguments = [
                ("data-dir", directory.as_str()),
                ("name", "bench"),
                ("listen-client-urls", &clients),
                ("advertise-client-urls", &clients),
                ("listen-peer-urls", &peers),
                ("initial-advertise-peer-urls", &peers),
                ("initial-cluster", &format!("bench={peers}")),
                ("log-level", "error"),
            ];
            Become::new(&program, arguments.map(|(option, value)| format!("--{option}={value}")))
        })
        .map_err(missing.because())?;
        let mut etcd = Etcd { server };
        let endpoint = etcd.endpoint();
        // It listens before it has elected itself.
        etcd.server
            .until_ready(|| {
                runtime
                    .block_on(async {
                        let channel = connect(endpoint.clone()).await?;
                        grant(&channel, TTL_S).await
                    })
                    .map_err(|status| status.to_string())
            })
            .map_err(missing.because())?;
        Ok(etcd)
    }

    fn endpoint(&self) -> Endpoint {
        let address = format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.server.port);
        Endpoint::from_shared(address).expect("an address").tcp_nodelay(true)
    }
}

impl Etcd {
    pub(crate) fn url(&self) -> String {
        format!("etcd://{}:{}", Ipv4Addr::LOCALHOST, self.server.port)
    }
}

impl Service for Etcd {
    type Client = Client;

    fn subject(&self) -> &'static str {
        SUBJECT
    }

    fn note(&self) -> &'static str {
        "one node, lock API, release awaited; every change synced to disk; in order"
    }

    fn engine(&self) -> Option<EngineUrl> {
        Some(EngineUrl::new("on etcd", self.url()))
    }

    async fn client(&self, name: &str, count: Arc<Unprotected>) -> Result<Client> {
        let channel = connect(self.endpoint()).await.map_err(of_peer(SUBJECT))?;
        let lease = grant(&channel, TTL_S).await.map_err(of_peer(SUBJECT))?;
        Ok(Client { channel, lease, name: name.into(), count })
    }

    fn sharing(&self, client: &Client, name: &str) -> Option<Client> {
        Some(Client { name: name.into(), ..client.clone() })
    }
}

impl Etcd {
    /// A client that makes keys, with a lease of its own.
    pub(super) async fn keys(&self) -> Result<EtcdKeys> {
        let channel = connect(self.endpoint()).await.map_err(of_peer(SUBJECT))?;
        let lease = grant(&channel, TTL_S).await.map_err(of_peer(SUBJECT))?;
        Ok(EtcdKeys { channel, lease })
    }
}

/// Makes keys, counts those made before, and deletes them.
pub(super) struct EtcdKeys {
    channel: Channel,
    lease: i64,
}

impl EtcdKeys {
    /// The revision at which it was made.
    pub(super) async fn put(&self, key: &str) -> Result<i64> {
        let put = PutRequest { key: key.into(), value: Vec::new(), lease: self.lease };
        let PutResponse { header } =
            call(&self.channel, "/etcdserverpb.KV/Put", put).await.map_err(failed)?;
        Ok(header.unwrap_or_default().revision)
    }

    /// How many keys that begin so were made before this revision.
    pub(super) async fn older(&self, prefix: &str, revision: i64) -> Result<i64> {
        let mut range_end = prefix.as_bytes().to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        let range = RangeRequest {
            key: prefix.into(),
            range_end,
            count_only: false,
            keys_only: true,
            max_create_revision: revision - 1,
        };
        let RangeResponse { kvs, .. } =
            call(&self.channel, "/etcdserverpb.KV/Range", range).await.map_err(failed)?;
        Ok(kvs.len() as i64)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let delete = DeleteRangeRequest { key: key.into() };
        let DeleteRangeResponse {} =
            call(&self.channel, "/etcdserverpb.KV/DeleteRange", delete).await.map_err(failed)?;
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    lease: i64,
    name: Vec<u8>,
    count: Arc<Unprotected>,
}

impl tasks::AsyncCaller for Client {
    async fn cycle(&mut self) -> Result<()> {
        let lock = LockRequest { name: self.name.clone(), lease: self.lease };
        let LockResponse { key, .. } =
            call(&self.channel, "/v3lockpb.Lock/Lock", lock).await.map_err(failed)?;
        self.count.increment();
        let UnlockResponse {} = call(&self.channel, "/v3lockpb.Lock/Unlock", UnlockRequest { key })
            .await
            .map_err(failed)?;
        Ok(())
    }
}

fn failed(status: Status) -> BenchFailure {
    of_peer(SUBJECT)(status)
}

async fn connect(endpoint: Endpoint) -> Result<Channel, Status> {
    endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
}

pub(super) async fn grant(channel: &Channel, ttl: i64) -> Result<i64, Status> {
    let request = LeaseGrantRequest { ttl };
    let LeaseGrantResponse { id, error } =
        call(channel, "/etcdserverpb.Lease/LeaseGrant", request).await?;
    if error.is_empty() { Ok(id) } else { Err(Status::internal(error)) }
}

pub(super) async fn call<Q, A>(
    channel: &Channel,
    path: &'static str,
    request: Q,
) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let answer = grpc.unary(Request::new(request), path, ProstCodec::default()).await?;
    Ok(answer.into_inner())
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(super) lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LockResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UnlockResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(string, tag = "4")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
    #[prost(uint64, tag = "4")]
    pub(super) raft_term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(bool, tag = "8")]
    pub(super) keys_only: bool,
    #[prost(bool, tag = "9")]
    pub(super) count_only: bool,
    #[prost(int64, tag = "13")]
    pub(super) max_create_revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeResponse {
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) kvs: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRangeResponse {}

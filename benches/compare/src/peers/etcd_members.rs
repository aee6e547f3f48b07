//! etcd, three members, through its lock API: what a site has that needs no leader of ours. Every client has a
//! lease, which it renews, and goes on to the next member when one does not answer.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{interval, timeout},
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::{http::uri::PathAndQuery, tokio_stream},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    etcd::{
        LockRequest, LockResponse, RangeRequest, RangeResponse, ResponseHeader, UnlockRequest,
        UnlockResponse, call, grant,
    },
    followed::{Followed, Proof, ReignClient, Reigning},
    server::{self, Become, free_port_for_long},
    service::{Missing, of_peer},
};
use crate::bench::{
    cleanup::OwnChild,
    failure::{BenchFailure, Result},
};

const SUBJECT: &str = "etcd";
/// As `etcdctl lock` has it.
const TTL_S: i64 = 10;
/// How long one member is asked before the next one is. Without that a request to a member that has lost its
/// leader is answered after seven seconds.
const ATTEMPT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Three members, in child processes.
pub(crate) struct EtcdMembers {
    runtime: Arc<Runtime>,
    program: PathBuf,
    directory: PathBuf,
    members: Vec<EtcdMember>,
    clients: usize,
}

struct EtcdMember {
    clients_port: u16,
    peers_port: u16,
    channel: Channel,
    child: Option<OwnChild>,
}

impl EtcdMembers {
    pub(crate) fn start(directory: &Path, runtime: &Arc<Runtime>) -> Result<EtcdMembers, Missing> {
        let missing = Missing::new("etcd", "etcd-server");
        let program = server::find("etcd").ok_or(missing.clone())?;
        let _entered = runtime.enter();
        let members = (0..3).map(|_| {
            let (clients_port, peers_port) = (free_port_for_long()?, free_port_for_long()?);
            let channel = endpoint(clients_port).connect_lazy();
            Ok(EtcdMember { clients_port, peers_port, channel, child: None })
        });
        let members = members.collect::<Result<_>>().map_err(missing.because())?;
        let (runtime, directory) = (runtime.clone(), directory.to_owned());
        let mut etcd = EtcdMembers { runtime, program, directory, members, clients: 0 };
        (0..3).try_for_each(|number| etcd.spawn(number)).map_err(missing.because())?;
        etcd.until_whole().map_err(missing.because())?;
        Ok(etcd)
    }

    fn spawn(&mut self, number: usize) -> Result<()> {
        let peers = |member: &EtcdMember| format!("http://127.0.0.1:{}", member.peers_port);
        let all = self.members.iter().enumerate();
        let all: Vec<_> =
            all.map(|(number, member)| format!("m{number}={}", peers(member))).collect();
        let member = &self.members[number];
        let clients = format!("http://127.0.0.1:{}", member.clients_port);
        let data = self.directory.join(format!("m{number}")).display().to_string();
        let arguments = [
            ("name", format!("m{number}")),
            ("data-dir", data),
            ("listen-client-urls", clients.clone()),
            ("advertise-client-urls", clients),
            ("listen-peer-urls", peers(member)),
            ("initial-advertise-peer-urls", peers(member)),
            ("initial-cluster", all.join(",")),
            ("log-level", "error".to_owned()),
        ];
        let arguments = arguments.map(|(option, value)| format!("--{option}={value}"));
        let child = Become::new(&self.program, arguments).start()?;
        self.members[number].child = Some(child);
        Ok(())
    }

    fn status(&self, number: usize) -> Result<StatusResponse, Status> {
        let channel = &self.members[number].channel;
        let asked = call(channel, "/etcdserverpb.Maintenance/Status", StatusRequest {});
        self.runtime.block_on(within(asked))
    }

    /// What each of them says of all, once they agree on the one that leads, and none lags.
    fn whole(&self) -> Option<Vec<StatusResponse>> {
        let told = (0..self.members.len()).map(|number| self.status(number).ok());
        let told = told.collect::<Option<Vec<_>>>()?;
        let ahead = told.iter().map(|status| status.raft_applied_index).max()?;
        let is_whole = |status: &StatusResponse| {
            status.leader != 0
                && status.leader == told[0].leader
                && status.raft_applied_index + LAG > ahead
        };
        told.iter().all(is_whole).then_some(told)
    }

    fn until_whole(&mut self) -> Result<Vec<StatusResponse>> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(told) = self.whole() {
                return Ok(told);
            }
            let ended = |member: &mut EtcdMember| member.child.as_mut()?.ended();
            if let Some(status) = self.members.iter_mut().find_map(ended) {
                return Err(of_peer(SUBJECT)(format!("a member ended: {status}")));
            }
            if Instant::now() > patience {
                return Err(of_peer(SUBJECT)("its members do not come together"));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Entries by which a member may be behind while others write.
const LAG: u64 = 1_000;

fn endpoint(port: u16) -> Endpoint {
    let address = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
    let endpoint = Endpoint::from_shared(address).expect("an address");
    endpoint.tcp_nodelay(true).connect_timeout(ATTEMPT)
}

async fn within<T>(asked: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = timeout(ATTEMPT, asked).await;
    answer.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")))
}

impl Followed for EtcdMembers {
    fn client(&mut self) -> Result<Box<dyn ReignClient>> {
        self.clients += 1;
        let _entered = self.runtime.enter();
        let ports = self.members.iter().map(|member| member.clients_port);
        let mut channels: Vec<_> = ports.map(|port| endpoint(port).connect_lazy()).collect();
        // Each has one of its own to begin with.
        channels.rotate_left(self.clients % self.members.len());
        let mut asking = Asking { channels, at: 0 };
        let lease = self.runtime.block_on(asking.lease())?;
        let renewing = self.runtime.spawn(asking.clone().renew(lease));
        let runtime = self.runtime.clone();
        Ok(Box::new(MembersClient { runtime, asking, lease, renewing, held: None }))
    }

    fn reigning(&mut self) -> Result<Reigning> {
        let told = self.until_whole()?;
        let number = told.iter().position(|status| status.member() == Some(status.leader));
        let number = number.ok_or_else(|| of_peer(SUBJECT)("it is led by no member"))?;
        Ok(Reigning { number, reign: Some(told[number].raft_term), since: None })
    }

    fn kill(&mut self, number: usize) -> Result<()> {
        self.members[number].child = None;
        Ok(())
    }

    fn restore(&mut self, number: usize) -> Result<()> {
        if self.members[number].child.is_none() {
            self.spawn(number)?;
        }
        self.until_whole().map(drop)
    }

    fn hand_over(&mut self, number: usize) -> Result<()> {
        let told = self.until_whole()?;
        let other = told[(number + 1) % told.len()].member();
        let request = MoveLeaderRequest { target: other.unwrap_or_default() };
        let channel = &self.members[number].channel;
        let asked = call(channel, "/etcdserverpb.Maintenance/MoveLeader", request);
        let MoveLeaderResponse {} =
            self.runtime.block_on(within(asked)).map_err(of_peer(SUBJECT))?;
        self.until_whole().map(drop)
    }

    fn pids(&self) -> Vec<Pid> {
        self.members.iter().filter_map(|member| member.child.as_ref()).map(OwnChild::pid).collect()
    }

    fn proof(&mut self) -> Result<Proof> {
        Ok(Proof::default())
    }
}

/// Asks one member, and the next one when that does not answer.
#[derive(Clone)]
struct Asking {
    channels: Vec<Channel>,
    at: usize,
}

impl Asking {
    /// The answer of the first that has one; none, if none has for long.
    async fn ask<Q, A>(&mut self, path: &'static str, request: Q) -> Result<Option<A>>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            match within(call(&self.channels[self.at], path, request.clone())).await {
                Ok(answer) => return Ok(Some(answer)),
                // What it says of the request itself every member would say.
                Err(status) if is_final(status.code()) => return Err(of_peer(SUBJECT)(status)),
                Err(_) => self.next().await,
            }
        }
        Ok(None)
    }

    async fn next(&mut self) {
        self.at = (self.at + 1) % self.channels.len();
        tokio::time::sleep(PAUSE).await;
    }

    async fn lease(&mut self) -> Result<i64> {
        let patience = Instant::now() + PATIENCE;
        loop {
            match within(grant(&self.channels[self.at], TTL_S)).await {
                Ok(lease) => return Ok(lease),
                Err(status) if Instant::now() > patience => return Err(of_peer(SUBJECT)(status)),
                Err(_) => self.next().await,
            }
        }
    }

    /// Keeps a lease alive, three times in its time to live.
    async fn renew(mut self, lease: i64) {
        let mut ticks = interval(Duration::from_secs(TTL_S as u64) / 3);
        loop {
            ticks.tick().await;
            for _ in 0..TTL_S {
                if within(keep_alive(&self.channels[self.at], lease)).await.is_ok() {
                    break;
                }
                self.next().await;
            }
        }
    }
}

fn is_final(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::InvalidArgument | Code::Unimplemented)
}

async fn keep_alive(channel: &Channel, lease: i64) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
    let request = Request::new(tokio_stream::once(KeepAliveRequest { lease }));
    let codec = ProstCodec::<KeepAliveRequest, KeepAliveResponse>::default();
    let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
    match answers.message().await? {
        Some(KeepAliveResponse { ttl }) if ttl > 0 => Ok(()),
        _ => Err(Status::unavailable("not renewed")),
    }
}

struct MembersClient {
    runtime: Arc<Runtime>,
    asking: Asking,
    lease: i64,
    renewing: JoinHandle<()>,
    held: Option<Vec<u8>>,
}

impl MembersClient {
    fn lock(&mut self, name: &str) -> Result<Option<LockResponse>> {
        let request = LockRequest { name: name.into(), lease: self.lease };
        let asked = self.asking.ask("/v3lockpb.Lock/Lock", request);
        self.runtime.block_on(asked)
    }

    fn unlock(&mut self, key: Vec<u8>) -> Result<()> {
        let asked = self.asking.ask("/v3lockpb.Lock/Unlock", UnlockRequest { key });
        let answer: Option<UnlockResponse> = self.runtime.block_on(asked)?;
        answer.map(drop).ok_or_else(silent)
    }
}

fn silent() -> BenchFailure {
    of_peer(SUBJECT)(format!("no member has answered for {} s", PATIENCE.as_secs()))
}

impl ReignClient for MembersClient {
    fn grant(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(LockResponse { header, key }) = self.lock(name)? else { return Ok(None) };
        self.unlock(key)?;
        Ok(Some(header.unwrap_or_default().raft_term))
    }

    fn quiet(&mut self) -> Result<()> {
        let LockResponse { key, .. } = self.lock("quiet")?.ok_or_else(silent)?;
        self.unlock(key)
    }

    fn hold(&mut self, name: &str) -> Result<()> {
        self.held = Some(self.lock(name)?.ok_or_else(silent)?.key);
        Ok(())
    }

    fn holds(&mut self) -> Result<bool> {
        let Some(key) = self.held.clone() else { return Ok(false) };
        let range = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
        let asked = self.asking.ask("/etcdserverpb.KV/Range", range);
        let RangeResponse { kvs } = self.runtime.block_on(asked)?.ok_or_else(silent)?;
        Ok(!kvs.is_empty())
    }

    fn give(&mut self) -> Result<bool> {
        let was_held = self.holds()?;
        if let Some(key) = self.held.take() {
            self.unlock(key)?;
        }
        Ok(was_held)
    }
}

impl Drop for MembersClient {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
    #[prost(uint64, tag = "6")]
    raft_term: u64,
    #[prost(uint64, tag = "7")]
    raft_applied_index: u64,
}

impl StatusResponse {
    /// The one that says this.
    fn member(&self) -> Option<u64> {
        Some(self.header.as_ref()?.member_id)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    target: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MoveLeaderResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct KeepAliveRequest {
    #[prost(int64, tag = "1")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeepAliveResponse {
    #[prost(int64, tag = "3")]
    ttl: i64,
}

//! A client of ZooKeeper that does one operation at a time, and nothing by itself.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::setting::until;

/// One session. It ends with its connection's time, or when it is closed.
pub(crate) struct RawClient {
    line: TcpStream,
    xid: i32,
}

/// For so long an answer to the first word is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a server's answer says is wrong.
pub(crate) const NO_NODE: i32 = -101;
pub(crate) const NODE_EXISTS: i32 = -110;

/// Kinds of nodes.
pub(crate) const PERSISTENT: i32 = 0;
pub(crate) const EPHEMERAL_SEQUENTIAL: i32 = 3;

/// Operations by their numbers.
const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_CHILDREN: i32 = 8;
const AUTH: i32 = 100;

impl RawClient {
    /// A server that has just begun may leave a connection without any answer: then another is made.
    pub(crate) fn connect(port: u16) -> RawClient {
        let mut found = None;
        until("a session", || {
            found = RawClient::try_connect(port);
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn try_connect(port: u16) -> Option<RawClient> {
        let mut line = TcpStream::connect(("127.0.0.1", port)).ok()?;
        line.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = Vec::new();
        hello.extend(0_i32.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        hello.extend(60_000_i32.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        buffer(&mut hello, &[0; 16]);
        hello.push(0);
        send(&mut line, &hello);
        line.peek(&mut [0]).ok().filter(|length| *length > 0)?;
        receive(&mut line);
        line.set_read_timeout(None).unwrap();
        Some(RawClient { line, xid: 0 })
    }

    /// The path of the node that was made.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], kind: i32) -> Result<String, i32> {
        let mut body = Vec::new();
        buffer(&mut body, path.as_bytes());
        buffer(&mut body, data);
        // All rights for all clients.
        body.extend(1_i32.to_be_bytes());
        body.extend(31_i32.to_be_bytes());
        buffer(&mut body, b"world");
        buffer(&mut body, b"anyone");
        body.extend(kind.to_be_bytes());
        self.ask(CREATE, &body).map(|answer| text(&mut &*answer))
    }

    pub(crate) fn delete(&mut self, path: &str) -> Result<(), i32> {
        let mut body = Vec::new();
        buffer(&mut body, path.as_bytes());
        body.extend((-1_i32).to_be_bytes());
        self.ask(DELETE, &body).map(|_| ())
    }

    /// The children of a node, in the order of the numbers that they end with.
    pub(crate) fn children(&mut self, path: &str) -> Vec<String> {
        let mut body = Vec::new();
        buffer(&mut body, path.as_bytes());
        body.push(0);
        let answer = match self.ask(GET_CHILDREN, &body) {
            Err(NO_NODE) => return Vec::new(),
            answer => answer.unwrap(),
        };
        let mut answer = &*answer;
        let count = number(&mut answer);
        let mut found: Vec<String> = (0..count).map(|_| text(&mut answer)).collect();
        found.sort_by_key(|child| child[child.len().saturating_sub(10)..].to_owned());
        found
    }

    pub(crate) fn log_in(&mut self, login: &str) {
        let mut body = 0_i32.to_be_bytes().to_vec();
        buffer(&mut body, b"digest");
        buffer(&mut body, login.as_bytes());
        self.ask(AUTH, &body).unwrap();
    }

    fn ask(&mut self, operation: i32, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.xid += 1;
        let mut request = Vec::new();
        request.extend(self.xid.to_be_bytes());
        request.extend(operation.to_be_bytes());
        request.extend(body);
        send(&mut self.line, &request);
        let answer = receive(&mut self.line);
        let fault = i32::from_be_bytes(answer[12..16].try_into().unwrap());
        if fault == 0 { Ok(answer[16..].to_vec()) } else { Err(fault) }
    }
}

fn buffer(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as i32).to_be_bytes());
    to.extend(bytes);
}

fn number(from: &mut &[u8]) -> i32 {
    let (head, rest) = from.split_at(4);
    *from = rest;
    i32::from_be_bytes(head.try_into().unwrap())
}

fn text(from: &mut &[u8]) -> String {
    let length = number(from) as usize;
    let (head, rest) = from.split_at(length);
    *from = rest;
    String::from_utf8(head.to_vec()).unwrap()
}

fn send(line: &mut TcpStream, body: &[u8]) {
    let mut frame = Vec::new();
    buffer(&mut frame, body);
    line.write_all(&frame).unwrap();
}

fn receive(line: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    line.read_exact(&mut length).unwrap();
    let mut body = vec![0; i32::from_be_bytes(length) as usize];
    line.read_exact(&mut body).unwrap();
    body
}

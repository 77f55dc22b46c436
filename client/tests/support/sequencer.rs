//! A sequencer that counts in memory.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply, Status};
use wire::{ClientId, Epoch, LogId, Position, RequestId};

use super::FakeWriter;

/// What happens to the next grant request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The request is lost.
    LoseRequest,
    /// The token is granted and the reply lost.
    LoseReply,
    /// The reply comes twice.
    Twice,
    /// First a reply to another request number, with another token, then the right one.
    LateReply,
    /// First noise, then the right reply.
    Noise,
    /// Refused.
    Status(Status),
    /// One position fewer than asked for.
    Fewer,
}

#[derive(Debug)]
pub struct State {
    pub next: u64,
    pub epoch: Epoch,
    pub script: VecDeque<Answer>,
    pub silent: bool,
    pub durable_known: bool,
    /// Every grant request that came, as (request, count).
    pub requests: Vec<(RequestId, u32)>,
    remembered: HashMap<(ClientId, RequestId), (Position, u32)>,
}

#[derive(Clone)]
pub struct FakeSequencer {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
}

impl FakeSequencer {
    pub async fn start(log: LogId, writer: FakeWriter) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let address = socket.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State {
            next: 0,
            epoch: Epoch(0),
            script: VecDeque::new(),
            silent: false,
            durable_known: true,
            requests: Vec::new(),
            remembered: HashMap::new(),
        }));
        let of = state.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
                let answers = of
                    .lock()
                    .expect("not poisoned")
                    .answers(log, &writer, &bytes[..len]);
                for answer in answers {
                    socket.send_to(&answer, from).await.expect("sends");
                }
            }
        });
        Self { address, state }
    }

    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state
            .lock()
            .expect("not poisoned")
            .script
            .extend(answers);
    }

    pub fn requests(&self) -> Vec<(RequestId, u32)> {
        self.state.lock().expect("not poisoned").requests.clone()
    }
}

impl State {
    fn answers(&mut self, log: LogId, writer: &FakeWriter, bytes: &[u8]) -> Vec<Vec<u8>> {
        let datagram = Datagram::parse(bytes, log).expect("a valid datagram");
        let header = datagram.header;
        let mut entries = datagram.entries::<Grant>();
        let grant = entries.next().expect("one entry").expect("valid");
        if self.silent {
            return Vec::new();
        }
        let durable = self
            .durable_known
            .then(|| writer.durable(Position(self.next)));
        if datagram.kind == Kind::Tail {
            let tail = Position(self.next);
            let reply = Reply::new(grant.request, grant.lane, Status::Ok, tail, 0);
            return vec![self.encode(&header, reply.with_durable(durable))];
        }
        self.requests.push((grant.request, grant.count));
        let answer = self.script.pop_front();
        if let Some(Answer::Status(status)) = answer {
            let tail = Position(self.next);
            let reply = Reply::new(grant.request, grant.lane, status, tail, 0);
            return vec![self.encode(&header, reply)];
        }
        if answer == Some(Answer::LoseRequest) {
            return Vec::new();
        }
        let (first, count) = *self
            .remembered
            .entry((header.client, grant.request))
            .or_insert_with(|| {
                let first = Position(self.next);
                self.next += u64::from(grant.count);
                (first, grant.count)
            });
        let right = Reply::new(grant.request, grant.lane, Status::Ok, first, count);
        let reply = self.encode(&header, right);
        match answer {
            Some(Answer::LoseReply) => Vec::new(),
            Some(Answer::Twice) => vec![reply.clone(), reply],
            Some(Answer::LateReply) => {
                let old = RequestId(grant.request.0.wrapping_sub(1));
                let late = Reply::new(old, grant.lane, Status::Ok, Position(4000), count);
                vec![self.encode(&header, late), reply]
            }
            Some(Answer::Noise) => {
                let mut other = header;
                other.client.0 ^= 1;
                let misled =
                    Reply::new(grant.request, grant.lane, Status::Ok, Position(5000), count);
                vec![
                    b"noise".to_vec(),
                    reply[..reply.len() - 1].to_vec(),
                    self.encode(&other, misled),
                    reply,
                ]
            }
            Some(Answer::Fewer) => {
                let fewer = Reply::new(grant.request, grant.lane, Status::Ok, first, count - 1);
                vec![self.encode(&header, fewer)]
            }
            _ => vec![reply],
        }
    }

    fn encode(&self, request: &Header, reply: Reply) -> Vec<u8> {
        let mut out = [0; datagram::MAX_DATAGRAM_BYTES];
        let len = datagram::write(request.reply(self.epoch), &[reply], &mut out).expect("fits");
        out[..len].to_vec()
    }
}

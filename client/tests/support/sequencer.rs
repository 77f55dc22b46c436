//! A sequencer that counts in memory.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply, Status};
use wire::mac::Key;
use wire::{ClientId, Epoch, Lane, LogId, Position, RequestId};

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
    /// Says of itself that it does not reign.
    pub standby: bool,
    pub durable_known: bool,
    /// Every grant request that came, as (request, count).
    pub requests: Vec<(RequestId, u32)>,
    /// Every datagram that came: its kind and the lanes and numbers of its requests.
    pub datagrams: Vec<(Kind, Vec<(Lane, RequestId)>)>,
    /// Datagrams that are lost next.
    pub lose: usize,
    /// Requests that it did not sign are dropped, and answers are signed.
    pub key: Option<Key>,
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
            standby: false,
            durable_known: true,
            requests: Vec::new(),
            datagrams: Vec::new(),
            lose: 0,
            key: None,
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
    /// Datagrams with requests for tokens that have come.
    pub fn grants(&self) -> usize {
        let grants = self.datagrams.iter();
        grants.filter(|(kind, _)| *kind == Kind::Grant).count()
    }

    /// The answers to one datagram: as many entries as it has, in their order.
    fn answers(&mut self, log: LogId, writer: &FakeWriter, bytes: &[u8]) -> Vec<Vec<u8>> {
        if self.key.as_ref().is_some_and(|key| !key.verify(bytes)) {
            return Vec::new();
        }
        let datagram = Datagram::parse(bytes, log).expect("a valid datagram");
        let header = datagram.header;
        let grants: Result<Vec<Grant>, _> = datagram.entries().collect();
        let grants = grants.expect("valid");
        let numbers = grants.iter().map(|grant| (grant.lane, grant.request));
        self.datagrams.push((datagram.kind, numbers.collect()));
        if self.lose > 0 {
            self.lose -= 1;
            return Vec::new();
        }
        if self.silent {
            return Vec::new();
        }
        if self.standby {
            let refuse = |grant: &Grant| {
                let (request, lane) = (grant.request, grant.lane);
                Reply::new(request, lane, Status::NotReigning, Position(0), 0)
            };
            let replies: Vec<Reply> = grants.iter().map(refuse).collect();
            return vec![self.encode_in(Epoch(0), &header, &replies)];
        }
        let durable = self
            .durable_known
            .then(|| writer.durable(Position(self.next)));
        if datagram.kind == Kind::Tail {
            let tail = Position(self.next);
            let told = |grant: &Grant| {
                let reply = Reply::new(grant.request, grant.lane, Status::Ok, tail, 0);
                reply.with_durable(durable)
            };
            let replies: Vec<Reply> = grants.iter().map(told).collect();
            return vec![self.encode(&header, &replies)];
        }
        if datagram.kind == Kind::Restripe {
            let status = match self.script.pop_front() {
                Some(Answer::Status(status)) => status,
                _ => Status::Ok,
            };
            let (request, lane) = (grants[0].request, grants[0].lane);
            let reply = Reply::new(request, lane, status, Position(self.next), 0);
            return vec![self.encode(&header, &[reply])];
        }
        if let [grant] = grants[..] {
            return self.scripted(&header, grant);
        }
        let right = |grant: &Grant| self.right(header.client, grant);
        let replies: Vec<Reply> = grants.iter().map(right).collect();
        vec![self.encode(&header, &replies)]
    }

    /// The token of a request, the same again if it is repeated.
    fn right(&mut self, client: ClientId, grant: &Grant) -> Reply {
        self.requests.push((grant.request, grant.count));
        let remembered = self.remembered.entry((client, grant.request));
        let (first, count) = *remembered.or_insert_with(|| {
            let first = Position(self.next);
            self.next += u64::from(grant.count);
            (first, grant.count)
        });
        Reply::new(grant.request, grant.lane, Status::Ok, first, count)
    }

    /// Answers a single request as the script says.
    fn scripted(&mut self, header: &Header, grant: Grant) -> Vec<Vec<u8>> {
        let answer = self.script.pop_front();
        let refused = match answer {
            Some(Answer::Status(status)) => Some(status),
            _ => None,
        };
        if refused.is_some() || answer == Some(Answer::LoseRequest) {
            self.requests.push((grant.request, grant.count));
            let refuse = |status| {
                let tail = Position(self.next);
                let reply = Reply::new(grant.request, grant.lane, status, tail, 0);
                self.encode(header, &[reply])
            };
            return refused.map(refuse).into_iter().collect();
        }
        let right = self.right(header.client, &grant);
        let (first, count) = (right.first, right.count);
        let reply = self.encode(header, &[right]);
        match answer {
            Some(Answer::LoseReply) => Vec::new(),
            Some(Answer::Twice) => vec![reply.clone(), reply],
            Some(Answer::LateReply) => {
                let old = RequestId(grant.request.0.wrapping_sub(1));
                let late = Reply::new(old, grant.lane, Status::Ok, Position(4000), count);
                vec![self.encode(header, &[late]), reply]
            }
            Some(Answer::Noise) => {
                let mut other = *header;
                other.client.0 ^= 1;
                let misled =
                    Reply::new(grant.request, grant.lane, Status::Ok, Position(5000), count);
                vec![
                    b"noise".to_vec(),
                    reply[..reply.len() - 1].to_vec(),
                    self.encode(&other, &[misled]),
                    reply,
                ]
            }
            Some(Answer::Fewer) => {
                let fewer = Reply::new(grant.request, grant.lane, Status::Ok, first, count - 1);
                vec![self.encode(header, &[fewer])]
            }
            _ => vec![reply],
        }
    }

    fn encode(&self, request: &Header, replies: &[Reply]) -> Vec<u8> {
        self.encode_in(self.epoch, request, replies)
    }

    fn encode_in(&self, epoch: Epoch, request: &Header, replies: &[Reply]) -> Vec<u8> {
        let mut out = [0; datagram::MAX_DATAGRAM_BYTES];
        let len = datagram::write(request.reply(epoch), replies, &mut out).expect("fits");
        if let Some(key) = &self.key {
            key.sign(&mut out[..len]);
        }
        out[..len].to_vec()
    }
}

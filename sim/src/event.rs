//! What happens, and to whom.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use stripe_writer::logic::members::Key;
use wire::frame::{Ack, Append, Seal, SealedStripe};
use wire::{Layout, OwnerNumber, RunBody};

use crate::store::{Answer, Op};

/// A process, from its start to its end; never used twice.
pub type ProcId = usize;

/// A call of a process to the store.
pub type CallId = u64;

/// What a process runs as. Several processes may hold one post at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Post {
    /// One of the sequencers, of which one reigns.
    Sequencer(u16),
    /// One of the stripe-writers.
    Writer(u16),
    /// One of the clients.
    Client(u16),
}

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A process is told something.
    Input(ProcId, Input),
    /// A request reaches the store. Without a call nobody waits for its answer.
    Store {
        /// Who asked, and how the answer finds its way.
        from: Option<(ProcId, CallId)>,
        /// What was asked.
        op: Op,
        /// Whether the answer reaches whoever asked.
        answered: bool,
    },
    /// What a script says, by its number.
    Act(usize),
    /// Whoever reigns crashes.
    Fall,
    /// Time for trouble.
    Nemesis,
    /// Time to start what does not run.
    Supervise,
}

/// What a process is told.
#[derive(Debug)]
pub enum Input {
    /// It begins.
    Start,
    /// A time has come.
    Timer(Timer),
    /// The store has answered.
    Answer(CallId, Answer),
    /// A datagram.
    Datagram(ProcId, Vec<u8>),
    /// An append frame on a connection.
    Append(ProcId, u64, Append, RunBody),
    /// An answer on a connection.
    Ack(u64, Ack),
    /// The connection is gone.
    Reset(u64),
    /// The host of a post says that nobody listens there.
    Closed(Post),
    /// A client's caller wants another layout.
    Wish(Layout),
    /// A sequencer asks for a seal.
    Seal(ProcId, Seal),
    /// A stripe-writer has sealed these.
    Sealed(u16, Seal, Vec<SealedStripe>),
    /// A stripe-writer asks another on a connection what it owns.
    AskClaims(ProcId, u64),
    /// What a stripe-writer owns, and whether it is about to end.
    Claims(u64, BTreeMap<Key, OwnerNumber>, bool),
}

/// Times that a process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Its regular work.
    Tick,
    /// Something is due: an object, a request.
    Due,
    /// A look at who owns what.
    Look,
    /// A call to the store is tried again.
    Retry(CallId),
}

impl Event {
    /// Adds what tells this event from others to the trace.
    pub fn trace(&self, hash: &mut DefaultHasher) {
        match self {
            Self::Input(to, input) => {
                (1_u8, *to).hash(hash);
                input.trace(hash);
            }
            Self::Store { from, op, answered } => {
                (2_u8, *from, *answered, std::mem::discriminant(op)).hash(hash);
                if let Op::CreateObject(object) = op {
                    let header = object.index.header;
                    (header.start.0, header.end.0, header.author.owner.0).hash(hash);
                }
            }
            Self::Act(number) => (6_u8, *number).hash(hash),
            Self::Fall => 5_u8.hash(hash),
            Self::Nemesis => 3_u8.hash(hash),
            Self::Supervise => 4_u8.hash(hash),
        }
    }
}

impl Input {
    fn trace(&self, hash: &mut DefaultHasher) {
        std::mem::discriminant(self).hash(hash);
        match self {
            Self::Start | Self::Seal(..) | Self::Wish(_) => {}
            Self::Timer(timer) => timer.hash(hash),
            Self::Answer(call, answer) => (*call, std::mem::discriminant(answer)).hash(hash),
            Self::Datagram(from, bytes) => {
                from.hash(hash);
                hash.write(bytes);
            }
            Self::Append(from, conn, head, body) => {
                (*from, *conn, head.place.first.0, body.crc()).hash(hash);
            }
            Self::Ack(conn, ack) => (*conn, ack.place.first.0, ack.count).hash(hash),
            Self::Reset(conn) => conn.hash(hash),
            Self::Closed(post) => post.hash(hash),
            Self::Sealed(post, seal, stripes) => {
                (*post, seal.epoch.0, seal.position.0, stripes.len()).hash(hash);
            }
            Self::AskClaims(from, conn) => (*from, *conn).hash(hash),
            Self::Claims(conn, claims, leaving) => (*conn, claims.len(), *leaving).hash(hash),
        }
    }
}

//! A stripe-writer that only seals.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use wire::frame::{Frame, PREFIX_BYTES, Prefix, Seal, SealedStripe, Welcome};
use wire::{Epoch, Fixed, LogId, SegmentId, StripeId, WriterId};

use super::LOG;

/// How a stripe-writer answers a seal.
#[derive(Clone, Copy)]
pub(crate) enum Seals {
    Well,
    /// First with the seal of an older epoch, then not at all, then well.
    Late,
    /// First it owns no stripe, and then it has taken them over.
    Heir,
}

/// A stripe-writer that only seals, as often as it is asked.
pub(crate) struct Writer {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) asked: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn start(seals: Seals, stripes: Vec<SealedStripe>) -> Self {
        Self::start_for(LOG, seals, stripes)
    }

    pub(crate) fn start_for(log: LogId, seals: Seals, stripes: Vec<SealedStripe>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepted");
                // Once every stripe is sealed whoever asks has no more use for answers, and goes in the middle of it.
                let hello = match receive(&mut stream) {
                    Some(Frame::Hello(hello)) => hello,
                    Some(_) => panic!("no hello"),
                    None => continue,
                };
                assert_eq!(hello.log, log);
                let (writer, epoch) = (WriterId::default(), Epoch(0));
                send(&mut stream, Frame::Welcome(Welcome { writer, epoch }));
                let seal = match receive(&mut stream) {
                    Some(Frame::Seal(seal)) => seal,
                    Some(_) => panic!("no seal"),
                    None => continue,
                };
                let attempt = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                match (seals, attempt) {
                    (Seals::Late, 0) => {
                        let epoch = Epoch(seal.epoch.0 - 1);
                        send_sealed(&mut stream, Seal { epoch, ..seal }, &stripes);
                    }
                    (Seals::Late, 1..4) => {}
                    (Seals::Heir, 0..3) => send_sealed(&mut stream, seal, &[]),
                    _ => send_sealed(&mut stream, seal, &stripes),
                }
            }
        });
        Self { address, asked }
    }
}

fn send(stream: &mut TcpStream, frame: Frame) {
    let bytes = frame.encode(0).expect("no body");
    let _ = stream.write_all(&bytes);
}

fn send_sealed(stream: &mut TcpStream, seal: Seal, stripes: &[SealedStripe]) {
    let body: Vec<u8> = stripes.iter().flat_map(Fixed::to_vec).collect();
    let head = Frame::Sealed(seal).encode(body.len()).expect("fits");
    let _ = stream.write_all(&[&head[..], &body].concat());
}

fn receive(stream: &mut TcpStream) -> Option<Frame> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).ok()?;
    let prefix = Prefix::decode(&prefix).expect("valid");
    let mut head = vec![0; prefix.head_len];
    stream.read_exact(&mut head).ok()?;
    Some(Frame::decode(&prefix, &head).expect("valid"))
}

/// Stripes of a segment.
pub(crate) fn stripes(segment: u32, stripes: Range<u16>) -> Vec<SealedStripe> {
    let name = |stripe| SealedStripe {
        segment: SegmentId(segment),
        stripe: StripeId(stripe),
    };
    stripes.map(name).collect()
}

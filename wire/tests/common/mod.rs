//! Fixed values of every format.

pub(crate) mod any;

use bytes::Bytes;
use wire::control::{ControlEntry, LogHead};
use wire::frame::{
    Ack, AckStatus, Append, Ask, End, EndReason, Frame, Frontiers, Hello, Place, Push, Refusal,
    Seal, SealedStripe, Unsubscribe, Welcome,
};
use wire::object::{Author, ChainId, Object};
use wire::{
    ClientId, Epoch, Fixed, Identity, Layout, LogId, OwnerNumber, Position, RequestId, Run,
    RunBody, Segment, SegmentId, Slot, StripeId, WriterId,
};

pub(crate) const LOG: LogId = LogId(*b"log id: 16 bytes");
pub(crate) const WRITER: WriterId = WriterId(*b"writer: 16 bytes");
pub(crate) const CLIENT: ClientId = ClientId(0xc1c2_c3c4_c5c6_c7c8);

pub(crate) const IDENTITY: Identity = Identity {
    client: CLIENT,
    request: RequestId(0x0102_0304),
};

pub(crate) const PLACE: Place = Place {
    segment: SegmentId(3),
    stripe: StripeId(0x1f),
    first: Slot(0x1122_3344_5566),
};

pub(crate) fn layout() -> Layout {
    Layout::new(32, 1024).expect("valid")
}

pub(crate) fn chain() -> ChainId {
    ChainId {
        log: LOG,
        segment: SegmentId(3),
        stripe: StripeId(0x1f),
        layout: layout(),
    }
}

pub(crate) const AUTHOR: Author = Author {
    epoch: Epoch(7),
    owner: OwnerNumber(2),
    writer: WRITER,
};

/// Records, junk and records again, one record of them empty.
pub(crate) fn runs() -> Vec<Run> {
    let first = RunBody::new(&["first", "", "third"]).expect("valid");
    let last = RunBody::new(&[[0xee; 20]]).expect("valid");
    let start = PLACE.first;
    vec![
        Run::records(start, IDENTITY, first),
        Run::junk(start.plus(3), 1 << 40),
        Run::records(start.plus(3 + (1 << 40)), IDENTITY, last),
    ]
}

pub(crate) fn object() -> Object {
    Object::build(chain(), AUTHOR, &runs()).expect("valid")
}

/// All bytes of an object as one run.
pub(crate) fn joined(object: &Object) -> Vec<u8> {
    object.chunks.concat()
}

pub(crate) fn control_entry() -> ControlEntry {
    let segment = |id, epoch, start, stripes| Segment {
        id: SegmentId(id),
        epoch: Epoch(epoch),
        start: Position(start),
        layout: Layout::new(stripes, 1024).expect("valid"),
    };
    ControlEntry {
        log: LOG,
        number: 12,
        epoch: Epoch(7),
        owner: WRITER,
        epoch_start: Position(0x0001_0000),
        reservation: Position(0x0012_0000),
        clean: true,
        trim: Position(0x100),
        segments: vec![segment(1, 1, 0, 32), segment(3, 7, 0x0001_0000, 64)],
    }
}

pub(crate) const HEAD: LogHead = LogHead {
    log: LOG,
    created_unix_ms: 1_700_000_000_000,
};

pub(crate) const SEAL: Seal = Seal {
    epoch: Epoch(8),
    position: Position(0x0012_0000),
};

/// What the body of its answer says.
pub(crate) const SEALED: [SealedStripe; 2] = [
    SealedStripe {
        segment: SegmentId(3),
        stripe: StripeId(0x1f),
    },
    SealedStripe {
        segment: SegmentId(7),
        stripe: StripeId(0x0102),
    },
];

/// One frame of each kind with its body.
pub(crate) fn frames() -> Vec<(&'static str, Frame, Bytes)> {
    let body = RunBody::new(&["a record", "and another"]).expect("valid");
    let append = Append {
        place: PLACE,
        epoch: Epoch(7),
        identity: IDENTITY,
        count: body.count(),
        crc: body.crc(),
    };
    let run = Run::records(PLACE.first, IDENTITY, body.clone());
    let push = Push::of(9, PLACE.segment, PLACE.stripe, &run);
    let mut frames = vec![
        ("append", Frame::Append(append), body.bytes().clone()),
        ("push", Frame::Push(push), body.bytes().clone()),
        (
            "refusal",
            Frame::Refusal(Refusal { retry: 1 }),
            Bytes::from_static(b"not now"),
        ),
        (
            "sealed",
            Frame::Sealed(SEAL),
            Bytes::from(SEALED.map(|stripe| stripe.to_vec()).concat()),
        ),
    ];
    let bare = bare_frames().into_iter();
    frames.extend(bare.map(|(name, frame)| (name, frame, Bytes::new())));
    frames
}

fn bare_frames() -> [(&'static str, Frame); 10] {
    let ask = Ask {
        id: 9,
        place: PLACE,
        until: Slot(u64::MAX),
    };
    let ack = Ack::new(PLACE, 2, IDENTITY.request, AckStatus::Conflict);
    [
        (
            "hello",
            Frame::Hello(Hello {
                log: LOG,
                client: CLIENT,
            }),
        ),
        (
            "welcome",
            Frame::Welcome(Welcome {
                writer: WRITER,
                epoch: Epoch(7),
            }),
        ),
        ("ack", Frame::Ack(ack)),
        ("read", Frame::Read(ask)),
        ("subscribe", Frame::Subscribe(ask)),
        ("unsubscribe", Frame::Unsubscribe(Unsubscribe { id: 9 })),
        ("end", Frame::End(End::new(9, PLACE, EndReason::Lagged))),
        ("seal", Frame::Seal(SEAL)),
        (
            "ask_frontiers",
            Frame::AskFrontiers(Frontiers {
                epoch: Epoch(0),
                leaving: 0,
            }),
        ),
        (
            "frontiers",
            Frame::Frontiers(Frontiers {
                epoch: Epoch(7),
                leaving: 1,
            }),
        ),
    ]
}

//! Strategies that make arbitrary values of every format.

use bytes::Bytes;
use proptest::prelude::*;
use wire::control::ControlEntry;
use wire::frame::{
    Ack, AckStatus, Append, Ask, End, EndReason, Frame, Frontiers, Hello, Place, Push, Refusal,
    Seal, SealedStripe, Unsubscribe, Welcome,
};
use wire::limits::{MAX_GRANT, MAX_POSITION};
use wire::object::{Author, ChainId};
use wire::{
    ClientId, Epoch, Fixed, Identity, Lane, Layout, LogId, OwnerNumber, Position, RequestId, Run,
    RunBody, Segment, SegmentId, Slot, StripeId, WriterId,
};

use super::layout;

pub(crate) fn any_log() -> impl Strategy<Value = LogId> {
    any::<[u8; 16]>().prop_map(LogId)
}

pub(crate) fn any_identity() -> impl Strategy<Value = Identity> {
    any::<(u64, u64)>().prop_map(|(client, request)| Identity {
        client: ClientId(client),
        request: RequestId(request),
    })
}

pub(crate) fn any_place() -> impl Strategy<Value = Place> + Clone {
    any::<(u32, u16, u64)>().prop_map(|(segment, stripe, first)| Place {
        segment: SegmentId(segment),
        stripe: StripeId(stripe),
        first: Slot(first),
    })
}

pub(crate) fn any_grant() -> impl Strategy<Value = wire::datagram::Grant> {
    (any::<u32>(), any::<u64>(), 1..=MAX_GRANT, 0..MAX_POSITION).prop_map(
        |(lane, request, count, tail)| {
            let (lane, request) = (Lane(lane), RequestId(request));
            wire::datagram::Grant::at(lane, request, count, Position(tail))
        },
    )
}

/// Any frame whose body is empty, or a run's as the head says.
pub(crate) fn any_frame() -> impl Strategy<Value = (Frame, Bytes)> {
    let empty = |frame: Frame| (frame, Bytes::new());
    let ask = (any::<u32>(), any_place(), any::<u64>()).prop_map(|(id, place, until)| Ask {
        id,
        place,
        until: Slot(until),
    });
    let seal = any::<(u64, u64)>().prop_map(|(epoch, position)| Seal {
        epoch: Epoch(epoch),
        position: Position(position),
    });
    let status = prop::sample::select(AckStatus::ALL.to_vec());
    let reason = prop::sample::select(vec![
        EndReason::Done,
        EndReason::Lagged,
        EndReason::NotOwner,
    ]);
    prop_oneof![
        (any_log(), any::<u64>()).prop_map(move |(log, client)| {
            empty(Frame::Hello(Hello {
                log,
                client: ClientId(client),
            }))
        }),
        any::<([u8; 16], u64)>().prop_map(move |(writer, epoch)| {
            empty(Frame::Welcome(Welcome {
                writer: WriterId(writer),
                epoch: Epoch(epoch),
            }))
        }),
        ("[a-z ]{0,40}", 0_u32..2)
            .prop_map(|(text, retry)| { (Frame::Refusal(Refusal { retry }), Bytes::from(text)) }),
        any_append(),
        (any_place(), any::<(u32, u64)>(), status).prop_map(
            move |(place, (count, request), status)| {
                empty(Frame::Ack(Ack::new(
                    place,
                    count,
                    RequestId(request),
                    status,
                )))
            }
        ),
        ask.clone().prop_map(move |ask| empty(Frame::Read(ask))),
        ask.prop_map(move |ask| empty(Frame::Subscribe(ask))),
        any::<u32>().prop_map(move |id| empty(Frame::Unsubscribe(Unsubscribe { id }))),
        any_push(),
        (any::<u32>(), any_place(), reason)
            .prop_map(move |(id, place, reason)| empty(Frame::End(End::new(id, place, reason)))),
        seal.clone().prop_map(move |seal| empty(Frame::Seal(seal))),
        (seal, prop::collection::vec(any::<(u32, u16)>(), 0..9)).prop_map(|(seal, stripes)| {
            let stripes = stripes.into_iter().map(|(segment, stripe)| SealedStripe {
                segment: SegmentId(segment),
                stripe: StripeId(stripe),
            });
            let body: Vec<_> = stripes.flat_map(|stripe| stripe.to_vec()).collect();
            (Frame::Sealed(seal), Bytes::from(body))
        }),
        any::<u64>().prop_map(move |epoch| {
            empty(Frame::AskFrontiers(Frontiers {
                epoch: Epoch(epoch),
                leaving: 0,
            }))
        }),
        any::<(u64, u32)>().prop_map(move |(epoch, leaving)| {
            empty(Frame::Frontiers(Frontiers {
                epoch: Epoch(epoch),
                leaving,
            }))
        }),
    ]
}

fn any_append() -> impl Strategy<Value = (Frame, Bytes)> {
    (any_place(), any::<u64>(), any_identity(), any_body()).prop_map(
        |(place, epoch, identity, body)| {
            let (count, crc) = (body.count(), body.crc());
            let append = Append {
                place,
                epoch: Epoch(epoch),
                identity,
                count,
                crc,
            };
            (Frame::Append(append), body.bytes().clone())
        },
    )
}

fn any_push() -> impl Strategy<Value = (Frame, Bytes)> {
    (any::<u32>(), any_place(), any_content()).prop_map(|(id, place, content)| {
        let run = run_at(place.first, content);
        let push = Push::of(id, place.segment, place.stripe, &run);
        let body = run
            .content
            .map_or_else(Bytes::new, |(_, body)| body.bytes().clone());
        (Frame::Push(push), body)
    })
}

pub(crate) fn any_body() -> impl Strategy<Value = RunBody> {
    let record = prop::collection::vec(any::<u8>(), 0..30);
    prop::collection::vec(record, 1..12).prop_map(|records| RunBody::new(&records).expect("valid"))
}

/// What a run may hold: records with an identity, or a number of junk slots.
type Content = Result<(Identity, RunBody), u64>;

fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        3 => (any_identity(), any_body()).prop_map(Ok),
        1 => (1_u64..1 << 40).prop_map(Err),
    ]
}

fn run_at(first: Slot, content: Content) -> Run {
    match content {
        Ok((identity, body)) => Run::records(first, identity, body),
        Err(count) => Run::junk(first, count),
    }
}

/// Runs that follow one another without gap.
pub(crate) fn any_runs() -> impl Strategy<Value = Vec<Run>> {
    let contents = prop::collection::vec(any_content(), 1..10);
    (0_u64..1 << 40, contents).prop_map(|(start, contents)| {
        let mut next = Slot(start);
        let mut place = |content| {
            let run = run_at(next, content);
            next = run.end();
            run
        };
        contents.into_iter().map(&mut place).collect()
    })
}

pub(crate) fn any_chain() -> impl Strategy<Value = ChainId> {
    (
        any_log(),
        any::<u32>(),
        1_u32..1000,
        1_u32..5000,
        any::<u16>(),
    )
        .prop_map(|(log, segment, stripes, unit, stripe)| ChainId {
            log,
            segment: SegmentId(segment),
            stripe: StripeId(u16::try_from(u32::from(stripe) % stripes).expect("below 1000")),
            layout: Layout::new(stripes, unit).expect("valid"),
        })
}

pub(crate) fn any_author() -> impl Strategy<Value = Author> {
    any::<(u64, u64, [u8; 16])>().prop_map(|(epoch, owner, writer)| Author {
        epoch: Epoch(epoch),
        owner: OwnerNumber(owner),
        writer: WriterId(writer),
    })
}

pub(crate) fn any_control_entry() -> impl Strategy<Value = ControlEntry> {
    let steps = prop::collection::vec(
        (1_u32..9, 0_u64..9, 1_u64..1 << 40, 1_u32..99, 1_u32..99),
        1..20,
    );
    let rest = (
        any_log(),
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<u64>(),
        any::<bool>(),
    );
    (
        steps,
        rest,
        0..=MAX_POSITION,
        any::<[prop::sample::Index; 2]>(),
    )
        .prop_map(
            |(steps, (log, owner, number, epoch, clean), reservation, [start, trim])| {
                let mut last = Segment {
                    id: SegmentId(0),
                    epoch: Epoch(0),
                    start: Position(0),
                    layout: layout(),
                };
                let segments = steps.into_iter().map(|(id, epoch, start, stripes, unit)| {
                    last = Segment {
                        id: SegmentId(last.id.0 + id),
                        epoch: Epoch(last.epoch.0 + epoch),
                        start: last.start.plus(start),
                        layout: Layout::new(stripes, unit).expect("valid"),
                    };
                    last
                });
                let upto = |index: prop::sample::Index| {
                    Position(index.index(usize::MAX) as u64 % (reservation + 1))
                };
                ControlEntry {
                    log,
                    number,
                    epoch: Epoch(epoch),
                    owner: WriterId(owner),
                    epoch_start: upto(start),
                    reservation: Position(reservation),
                    clean,
                    trim: upto(trim),
                    segments: segments.collect(),
                }
            },
        )
}

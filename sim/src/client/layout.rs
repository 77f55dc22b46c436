//! A client that wants another layout (H-5): `client/src/restripe.rs`.

use std::rc::Rc;
use std::time::Duration;

use wire::control::ControlEntry;
use wire::datagram::{Kind, Restripe, Status};
use wire::{Lane, Layout, SegmentId};

use super::{Asked, Client, Env, For, calls};

/// Of wishes for another layout.
const LAYOUTS: Lane = Lane(3);

/// Pause before the same is asked again.
const PAUSE: Duration = Duration::from_millis(80);

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    layout: Layout,
    /// The segment that was the newest.
    behind: Option<SegmentId>,
}

impl Client {
    /// The caller wants this layout.
    pub(super) fn wants(&mut self, layout: Layout, env: &mut Env) {
        if self.wish.is_none() {
            let behind = None;
            self.wish = Some(Wish { layout, behind });
            self.calls.insist(calls::What::Last, For::Layout, env);
        }
    }

    /// The control chain was looked at: before the first question, and after each answer.
    pub(super) fn looked(&mut self, entry: Rc<ControlEntry>, env: &Env) {
        let newest = entry.segments.last().copied();
        self.learn(entry);
        let (Some(wish), Some(newest)) = (&mut self.wish, newest) else {
            return;
        };
        let first = wish.behind.is_none();
        let behind = *wish.behind.get_or_insert(newest.id);
        if newest.id > behind || newest.layout == wish.layout {
            // It is there, or another one came first.
            self.wish = None;
            return;
        }
        let pause = if first { Duration::ZERO } else { PAUSE };
        let layout = wish.layout;
        let wish = Restripe::new(LAYOUTS, self.request(), layout, behind);
        let now = env.clock(self.me);
        let grant = wish.as_grant();
        self.asks
            .add(Kind::Restripe, grant, now + pause, Asked::Layout);
    }

    /// The sequencer has answered.
    pub(super) fn wished(&mut self, status: Status, env: &mut Env) {
        if matches!(status, Status::Busy | Status::Invalid) {
            self.wish = None;
            return;
        }
        self.calls.insist(calls::What::Last, For::Layout, env);
    }
}

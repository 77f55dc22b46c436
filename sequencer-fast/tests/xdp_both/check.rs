//! Whether a reply can be true at the moment at which it comes.

use wire::datagram::{Datagram, Grant, Header, Kind, Reply, Status};
use wire::limits::MAX_GRANT;

use super::asked::Asked;
use super::common::LOG;
use super::told::Token;
use super::twins::Twin;

impl Twin {
    pub(crate) fn check(&mut self, bytes: &[u8]) {
        self.told.replies += 1;
        let datagram = Datagram::parse(bytes, LOG).expect("a reply is well formed");
        let header = datagram.header;
        assert!(header.is_reply() && self.twins.clients.contains(&header.client.0));
        let asked = self.twins.asked(header.tag);
        if let Some(asked) = &asked {
            assert_eq!((asked.client, asked.kind), (header.client, datagram.kind));
        } else {
            self.told.late += 1;
        }
        for reply in datagram.entries::<Reply>() {
            let reply = reply.expect("valid");
            assert_eq!(reply.request.0, header.tag, "its request");
            self.check_reply(&header, datagram.kind, &reply, asked.as_deref());
        }
    }

    fn check_reply(&mut self, header: &Header, kind: Kind, reply: &Reply, asked: Option<&Asked>) {
        let status = reply.status().expect("known");
        let silence = self.world.silence();
        if status != Status::Ok {
            let silenced = asked.is_some_and(|asked| asked.silence != 0);
            match status {
                _ if silenced => self.told.silenced += 1,
                Status::Busy => self.told.busy += 1,
                _ => self.told.refused += 1,
            }
            return;
        }
        if let Some(asked) = asked {
            let of_lane = |entry: &&Grant| entry.lane == reply.lane;
            let entry = asked
                .entries
                .iter()
                .find(of_lane)
                .expect("a lane that asked");
            assert_eq!(reply.count, entry.count, "{reply:?} {asked:?}");
            // [S-5]
            assert!(
                asked.silence == 0 || asked.silence != silence,
                "granted in silence: {reply:?} {asked:?}"
            );
            // [S-7] Whatever was told before it asked lies below.
            let floor = asked.floor;
            assert!(reply.first.0 >= floor, "went back: floor={floor} {reply:?}");
            if kind == Kind::GrantAt {
                assert_eq!(reply.first, entry.expected_tail, "{reply:?}");
                self.told.conditional += 1;
            }
        }
        let end = reply.first.plus(u64::from(reply.count));
        // [S-2]
        let covered = self.world.covered(header.epoch);
        assert!(
            end.0 <= covered,
            "above the reservation: covered={covered} {header:?} {reply:?}"
        );
        self.world.told(end.0);
        if kind == Kind::Tail {
            self.told.tails += 1;
            return;
        }
        assert!((1..=MAX_GRANT).contains(&reply.count), "{reply:?}");
        self.told.tokens.push(Token {
            first: reply.first.0,
            end: end.0,
            epoch: header.epoch.0,
            client: header.client.0,
            lane: reply.lane.0,
            request: reply.request.0,
        });
    }
}

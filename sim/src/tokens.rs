//! What sequencers granted and told, and whether they may have.

use std::collections::BTreeMap;

use wire::datagram::{Datagram, Kind, Reply, Status};
use wire::{Epoch, Position};

use crate::env::LOG;
use crate::store::Store;

/// Who asked for a token: client, lane and request.
type Asker = (u64, u32, u64);

/// All tokens, and the tails that each process told.
#[derive(Debug, Default)]
pub struct Tokens {
    /// By first position: end and who has it.
    granted: BTreeMap<u64, (u64, Asker)>,
    tails: BTreeMap<usize, (Position, Position)>,
    /// Number of tokens.
    pub count: u64,
}

impl Tokens {
    /// A reply leaves a sequencer.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn sent(&mut self, from: usize, bytes: &[u8], store: &mut Store) -> Result<(), String> {
        let datagram = Datagram::parse(bytes, LOG).map_err(|e| format!("S-9: {e}"))?;
        let (header, kind) = (datagram.header, datagram.kind);
        for reply in datagram.entries::<Reply>() {
            let reply = reply.map_err(|e| format!("S-9: {e}"))?;
            if reply.status() != Ok(Status::Ok) {
                continue;
            }
            if reply.count > 0 {
                let asker = (header.client.0, reply.lane.0, reply.request.0);
                let end = reply.first.plus(u64::from(reply.count));
                self.token(header.epoch, reply.first.0, end.0, asker, store)?;
                store.told = store.told.max(end);
            } else if kind != Kind::Grant {
                self.tails(from, &reply, store)?;
            }
        }
        Ok(())
    }

    fn token(
        &mut self,
        epoch: Epoch,
        first: u64,
        end: u64,
        asker: Asker,
        store: &Store,
    ) -> Result<(), String> {
        let reserved = store.reserved.get(&epoch).copied().unwrap_or_default();
        if end > reserved.0 {
            return Err(format!(
                "S-2: token [{first}, {end}) of epoch {epoch}, reserved {reserved}"
            ));
        }
        let start = store.starts.get(&epoch).copied().unwrap_or_default();
        if store.durable() < start {
            let durable = store.durable();
            return Err(format!(
                "H-4: token of epoch {epoch}, which starts at {start}, durable {durable}"
            ));
        }
        for (start, (stop, other)) in self.granted.range(..end).rev().take(2) {
            let same = (*start, *stop, *other) == (first, end, asker);
            if *stop > first && !same {
                let what = format!("[{start}, {stop}) of {other:?}, [{first}, {end}) of {asker:?}");
                return Err(format!("S-1: {what}"));
            }
        }
        self.count += u64::from(self.granted.insert(first, (end, asker)).is_none());
        Ok(())
    }

    fn tails(&mut self, from: usize, reply: &Reply, store: &mut Store) -> Result<(), String> {
        let (issued, durable) = self.tails.entry(from).or_default();
        let told = reply.durable().unwrap_or(*durable);
        if reply.first < *issued || told < *durable || told > reply.first {
            let was = format!("{issued} and {durable}");
            return Err(format!("S-7: tails {} and {told} after {was}", reply.first));
        }
        (*issued, *durable) = (reply.first, told);
        if reply.durable().is_some() && told > store.durable() {
            return Err(format!(
                "S-7: durable tail {told}, the store has {}",
                store.durable()
            ));
        }
        store.told = store.told.max(reply.first);
        Ok(())
    }
}

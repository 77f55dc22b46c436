//! Where requests come from and where replies go.

/// Who sent a datagram.
pub trait Peer: Copy {
    /// The address that limits are kept for: one host, or one network that a host may choose from.
    fn address(&self) -> u128;
}

/// A buffer with datagrams of one sender, equal in size but for the last, which may be shorter.
#[derive(Debug)]
pub struct Packet<'a, P> {
    /// The sender.
    pub peer: P,
    /// The datagrams, side by side.
    pub bytes: &'a mut [u8],
    /// Size of each datagram in bytes.
    pub segment: usize,
}

/// What was received in one go. Replies are written over the requests, and what is kept of a packet goes
/// back to its sender.
pub trait Packets<P> {
    /// Number of packets.
    fn count(&self) -> usize;

    /// A packet, as far as it is kept: all of it at first.
    fn packet(&mut self, index: usize) -> Option<Packet<'_, P>>;

    /// Keeps the first `len` bytes of a packet.
    fn keep(&mut self, index: usize, len: usize);
}

/// Where replies go that do not stand in a packet.
pub trait Outbox<P> {
    /// Sends one reply datagram to `peer`.
    fn send(&mut self, peer: P, datagram: &[u8]);
}

/// Keeps the datagrams of a packet for which `keep` says so, moved together at the front, and returns how
/// many bytes they take.
#[inline]
pub(crate) fn retain<P: Copy>(
    packet: Packet<'_, P>,
    mut keep: impl FnMut(P, &mut [u8]) -> bool,
) -> usize {
    let Packet {
        peer,
        bytes,
        segment,
    } = packet;
    let (mut at, mut kept) = (0, 0);
    while at < bytes.len() {
        let end = bytes.len().min(at.saturating_add(segment.max(1)));
        if bytes
            .get_mut(at..end)
            .is_some_and(|bytes| keep(peer, bytes))
        {
            if kept < at {
                bytes.copy_within(at..end, kept);
            }
            kept += end - at;
        }
        at = end;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_closed_up() {
        for (dropped, expected) in [
            ("", "aabbccd"),
            ("a", "bbccd"),
            ("b", "aaccd"),
            ("ac", "bbd"),
            ("d", "aabbcc"),
            ("abcd", ""),
        ] {
            let mut bytes = b"aabbccd".to_vec();
            let packet = Packet {
                peer: (),
                bytes: &mut bytes,
                segment: 2,
            };
            let kept = retain(packet, |(), bytes| !dropped.contains(char::from(bytes[0])));
            assert_eq!(&bytes[..kept], expected.as_bytes(), "dropped={dropped}");
        }
    }
}

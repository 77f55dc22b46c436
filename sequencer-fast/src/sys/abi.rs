//! Addresses and control messages as the kernel lays them out, on plain bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the largest socket address that is used, `sockaddr_in6`.
pub(crate) const NAME_BYTES: usize = 28;

/// Bytes of one control message with up to 8 bytes of data.
pub(crate) const CONTROL_BYTES: usize = HEADER_BYTES + 8;

/// Bytes before the payload in a buffer of a multishot receive: four numbers of 32 bits, then as much room
/// for name and control message as the request had.
pub(crate) const MESSAGE_HEAD_BYTES: usize = NAME_AT + NAME_BYTES + CONTROL_BYTES;

/// A `cmsghdr`: length of a word, level and type.
const HEADER_BYTES: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();

const _: () = assert!(HEADER_BYTES == size_of::<libc::cmsghdr>());
const _: () = assert!(NAME_BYTES == size_of::<libc::sockaddr_in6>());

/// Room for a socket address.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(8))]
pub(crate) struct Name(pub(crate) [u8; NAME_BYTES]);

/// Room for one control message.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(8))]
pub(crate) struct Control(pub(crate) [u8; CONTROL_BYTES]);

impl Name {
    /// Lays an address out, and returns the length that is used.
    pub(crate) fn write(&mut self, address: SocketAddr) -> u32 {
        self.0 = [0; NAME_BYTES];
        let (family, len) = match address {
            SocketAddr::V4(_) => (libc::AF_INET, size_of::<libc::sockaddr_in>()),
            SocketAddr::V6(_) => (libc::AF_INET6, NAME_BYTES),
        };
        let family = u16::try_from(family).unwrap_or_default();
        put(&mut self.0, 0, &family.to_ne_bytes());
        put(&mut self.0, 2, &address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => put(&mut self.0, 4, &address.ip().octets()),
            SocketAddr::V6(address) => {
                put(&mut self.0, 4, &address.flowinfo().to_ne_bytes());
                put(&mut self.0, 8, &address.ip().octets());
                put(&mut self.0, 24, &address.scope_id().to_ne_bytes());
            }
        }
        u32::try_from(len).unwrap_or_default()
    }
}

/// The address in the bytes of a name, if it is an internet address with a port that can be answered.
pub(crate) fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(take(name, 0)?));
    let port = u16::from_be_bytes(take(name, 2)?);
    let address = if family == libc::AF_INET {
        let ip = Ipv4Addr::from(take::<4>(name, 4)?);
        SocketAddr::new(IpAddr::V4(ip), port)
    } else if family == libc::AF_INET6 {
        let ip = Ipv6Addr::from(take::<16>(name, 8)?);
        let flow = u32::from_ne_bytes(take(name, 4)?);
        let scope = u32::from_ne_bytes(take(name, 24)?);
        SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope))
    } else {
        return None;
    };
    (port != 0).then_some(address)
}

/// Writes the control message that makes the kernel cut what is sent into datagrams of `size` bytes, and
/// returns its length.
pub(crate) fn write_segment(control: &mut Control, size: u16) -> usize {
    let (data, word) = (size.to_ne_bytes(), size_of::<usize>());
    let len = HEADER_BYTES + data.len();
    put(&mut control.0, 0, &len.to_ne_bytes());
    put(&mut control.0, word, &libc::SOL_UDP.to_ne_bytes());
    put(&mut control.0, word + 4, &libc::UDP_SEGMENT.to_ne_bytes());
    put(&mut control.0, HEADER_BYTES, &data);
    CONTROL_BYTES
}

/// The size of the datagrams that the kernel has merged, if it has merged any.
pub(crate) fn read_gro(mut control: &[u8]) -> Option<usize> {
    loop {
        let word = size_of::<usize>();
        let len = usize::from_ne_bytes(take(control, 0)?);
        let level = i32::from_ne_bytes(take(control, word)?);
        let kind = i32::from_ne_bytes(take(control, word + 4)?);
        if len < HEADER_BYTES {
            return None;
        }
        if level == libc::SOL_UDP && kind == libc::UDP_GRO {
            let size = i32::from_ne_bytes(take(control, HEADER_BYTES)?);
            return usize::try_from(size).ok().filter(|size| *size > 0);
        }
        control = control.get(len.checked_next_multiple_of(word)?..)?;
    }
}

/// What a multishot receive has put before the payload of a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageHead {
    /// Bytes of the sender's name.
    pub(crate) name_len: usize,
    /// The sender, if it can be answered.
    pub(crate) peer: Option<SocketAddr>,
    /// Size of the datagrams, if several were merged.
    pub(crate) segment: Option<usize>,
    /// Whether the buffer was too small.
    pub(crate) truncated: bool,
}

/// Offset of the sender's name in a buffer of a multishot receive.
pub(crate) const NAME_AT: usize = 16;

/// Reads the bytes before the payload.
pub(crate) fn read_head(bytes: &[u8]) -> Option<MessageHead> {
    let number = |at| Some(u32::from_ne_bytes(take(bytes, at)?));
    let (name_len, control_len) = (number(0)? as usize, number(4)? as usize);
    let flags = number(12)?;
    let name_len = name_len.min(NAME_BYTES);
    let name = bytes.get(NAME_AT..NAME_AT + name_len)?;
    let control = bytes.get(NAME_AT + NAME_BYTES..MESSAGE_HEAD_BYTES)?;
    Some(MessageHead {
        name_len,
        peer: read_name(name),
        segment: read_gro(control.get(..control_len.min(CONTROL_BYTES))?),
        truncated: u32::try_from(libc::MSG_TRUNC).is_ok_and(|bit| flags & bit != 0),
    })
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive() {
        for text in ["127.0.0.1:7400", "[::1]:1", "[fe80::1%3]:65535"] {
            let address: SocketAddr = text.parse().expect("valid");
            let mut name = Name::default();
            let len = name.write(address) as usize;
            assert_eq!(read_name(&name.0[..len]), Some(address));
            // As long as the system's own layout.
            assert_eq!(socket2::SockAddr::from(address).len() as usize, len);
        }
    }

    #[test]
    fn names_that_cannot_be_answered_are_none() {
        let mut name = Name::default();
        let len = name.write("10.0.0.1:0".parse().expect("valid")) as usize;
        assert_eq!(read_name(&name.0[..len]), None);
        assert_eq!(read_name(&[1, 0, 0, 80, 0, 0, 0, 0]), None);
        assert_eq!(read_name(&[2]), None);
        assert_eq!(read_name(&[]), None);
    }

    #[test]
    fn control_messages() {
        let mut control = Control::default();
        write_segment(&mut control, 112);
        assert_eq!(read_gro(&control.0), None, "UDP_SEGMENT is not UDP_GRO");
        let kind = size_of::<usize>() + 4;
        put(&mut control.0, kind, &libc::UDP_GRO.to_ne_bytes());
        assert_eq!(read_gro(&control.0), Some(112));
        for len in 0..HEADER_BYTES + 4 {
            assert_eq!(read_gro(&control.0[..len]), None, "len={len}");
        }
        put(&mut control.0, 0, &usize::MAX.to_ne_bytes());
        put(&mut control.0, kind, &0_i32.to_ne_bytes());
        assert_eq!(read_gro(&control.0), None, "absurd length");
    }
}

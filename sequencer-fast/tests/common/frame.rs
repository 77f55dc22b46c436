//! Frames with UDP datagrams, and what the stack of a host makes of them.

use std::net::IpAddr;

pub(crate) const SERVER_MAC: [u8; 6] = [2, 0x99, 0, 0, 0, 1];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0x99, 0, 0, 0, 2];

pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const UDP_BYTES: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// Where a datagram comes from and goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
}

/// Bytes of the IP header.
pub(crate) fn ip_bytes(ipv6: bool) -> usize {
    if ipv6 { 40 } else { 20 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn len16(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("small").to_be_bytes()
}

/// A whole frame from the client's end of a bed to the server's, with right checksums; where `summed` is false, with no
/// checksum of the datagram.
pub(crate) fn frame(way: Way, payload: &[u8], summed: bool) -> Vec<u8> {
    let ipv6 = way.to.0.is_ipv6();
    let udp_len = UDP_BYTES + payload.len();
    let mut bytes = [SERVER_MAC, CLIENT_MAC].concat();
    let (from, to) = (octets(way.from.0), octets(way.to.0));
    if ipv6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend(len16(udp_len));
        bytes.extend([PROTOCOL_UDP, 64]);
    } else {
        bytes.extend([8, 0, 0x45, 0]);
        bytes.extend(len16(20 + udp_len));
        bytes.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
    }
    bytes.extend(&from);
    bytes.extend(&to);
    bytes.extend(way.from.1.to_be_bytes());
    bytes.extend(way.to.1.to_be_bytes());
    bytes.extend(len16(udp_len));
    bytes.extend([0, 0]);
    bytes.extend(payload);
    set_sums(&mut bytes, ipv6, summed);
    bytes
}

/// Sets the checksums of a frame right, as far as it is long enough.
pub(crate) fn set_sums(bytes: &mut [u8], ipv6: bool, summed: bool) {
    let udp = ETHERNET_BYTES + ip_bytes(ipv6);
    if bytes.len() < udp + UDP_BYTES {
        return;
    }
    if !ipv6 {
        bytes[24..26].fill(0);
        let sum = !fold(sum(&bytes[ETHERNET_BYTES..udp]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    bytes[udp + 6..udp + 8].fill(0);
    if summed || ipv6 {
        let sum = match !fold(sum_udp(bytes, ipv6)) {
            0 => u16::MAX,
            sum => sum,
        };
        bytes[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The payload of a frame, if the stack of the server's end gives it to the socket of this port.
pub(crate) fn delivered(bytes: &[u8], way: Way) -> Option<Vec<u8>> {
    // A tag with no VLAN in it is as good as none.
    if bytes.get(12..14) == Some(&[0x81, 0])
        && bytes
            .get(14..16)
            .is_some_and(|tag| tag[0] & 15 == 0 && tag[1] == 0)
    {
        let bytes = [&bytes[..12], &bytes[16..]].concat();
        return delivered(&bytes, way);
    }
    let ipv6 = way.to.0.is_ipv6();
    let udp = ETHERNET_BYTES + ip_bytes(ipv6);
    let head = bytes.get(..udp + UDP_BYTES)?;
    let kind: &[u8] = if ipv6 { &[0x86, 0xdd] } else { &[8, 0] };
    // Also what is for many, as long as it says that it is for this host further up.
    let mac = head[..6] == SERVER_MAC || head[0] & 1 == 1;
    let for_us = mac && head[12..14] == *kind && head[udp + 2..udp + 4] == way.to.1.to_be_bytes();
    if !for_us {
        return None;
    }
    let word = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let to = octets(way.to.0);
    let (to_at, len) = if ipv6 {
        (38, 40 + word(18))
    } else {
        (30, word(16))
    };
    let protocol = head[if ipv6 { 20 } else { 23 }];
    if head[to_at..to_at + to.len()] != to || protocol != PROTOCOL_UDP {
        return None;
    }
    // A frame may be longer than its packet: the rest is padding.
    let end = ETHERNET_BYTES + len;
    let whole = bytes.get(..end)?;
    let udp_len = word(udp + 4);
    if udp_len < UDP_BYTES || udp + udp_len > end {
        return None;
    }
    let sound = match ipv6 {
        true => head[14] >> 4 == 6 && word(udp + 6) != 0 && is_right(whole, udp_len, ipv6),
        false => {
            let fragment = word(20) & 0x3fff;
            let right = fold(sum(&head[ETHERNET_BYTES..udp])) == u16::MAX;
            let summed = word(udp + 6) == 0 || is_right(whole, udp_len, ipv6);
            head[14] == 0x45 && fragment == 0 && right && summed
        }
    };
    sound.then(|| whole[udp + UDP_BYTES..udp + udp_len].to_vec())
}

/// Whether the checksum is right, or that of a packet that was to be completed on its way, which two devices of one host
/// do not do.
fn is_right(whole: &[u8], udp_len: usize, ipv6: bool) -> bool {
    let udp = ETHERNET_BYTES + ip_bytes(ipv6);
    let mut pseudo = whole[..udp + UDP_BYTES].to_vec();
    pseudo[udp..udp + 4].fill(0);
    pseudo[udp + 6..].fill(0);
    let found = u16::from_be_bytes([whole[udp + 6], whole[udp + 7]]);
    // The length stands in the datagram once more.
    let pseudo = fold(sum_udp(&pseudo, ipv6) - u64::from(u16::try_from(udp_len).expect("small")));
    fold(sum_udp(&whole[..udp + udp_len], ipv6)) == u16::MAX || found == pseudo
}

/// The sum of a datagram with its pseudo-header, of a frame that ends with it.
fn sum_udp(bytes: &[u8], ipv6: bool) -> u64 {
    let udp = ETHERNET_BYTES + ip_bytes(ipv6);
    let addresses = udp - if ipv6 { 32 } else { 8 };
    let len = u64::from(u16::from_be_bytes([bytes[udp + 4], bytes[udp + 5]]));
    sum(&bytes[addresses..]) + u64::from(PROTOCOL_UDP) + len
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    words.map(word).sum()
}

fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > u64::from(u16::MAX) {
        sum = (sum & u64::from(u16::MAX)) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

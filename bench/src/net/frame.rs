//! Whole frames with UDP datagrams over IPv4, from the load's end of the bed to the server's.

use std::net::Ipv4Addr;

use anyhow::Result;

/// The hardware addresses of the bed's devices.
const SERVER_MAC: [u8; 6] = [2, 0x99, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0x99, 0, 0, 0, 2];

const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// Where a datagram comes from and goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) from: (Ipv4Addr, u16),
    pub(crate) to: (Ipv4Addr, u16),
}

/// A frame with a datagram that has no checksum of its own, as none between devices of one host has.
///
/// # Errors
/// If it is too long for a packet.
pub(crate) fn frame(ends: Ends, payload: &[u8]) -> Result<Vec<u8>> {
    let udp_len = u16::try_from(UDP_BYTES + payload.len())?;
    let ip_len = udp_len
        .checked_add(u16::try_from(IP_BYTES)?)
        .ok_or_else(|| anyhow::anyhow!("too long for a packet"))?;
    let mut bytes = [SERVER_MAC, CLIENT_MAC].concat();
    bytes.extend([8, 0]);
    // Version and length of the header, service, length, number, not to be cut, hops, UDP, checksum.
    bytes.extend([0x45, 0]);
    bytes.extend(ip_len.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    bytes.extend(ends.from.0.octets());
    bytes.extend(ends.to.0.octets());
    let sum = !sum(&bytes[ETHERNET_BYTES..]);
    bytes[ETHERNET_BYTES + 10..ETHERNET_BYTES + 12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(ends.from.1.to_be_bytes());
    bytes.extend(ends.to.1.to_be_bytes());
    bytes.extend(udp_len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    Ok(bytes)
}

/// The ones' complement sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    bytes.as_chunks().0.iter().fold(0, |sum: u16, pair| {
        let (sum, carried) = sum.overflowing_add(u16::from_be_bytes(*pair));
        sum + u16::from(carried)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_agree_with_their_checksum_and_lengths() {
        let ends = Ends {
            from: ([10, 99, 0, 2].into(), 4000),
            to: ([10, 99, 0, 1].into(), 7400),
        };
        let bytes = frame(ends, &[7; 112]).expect("fits");
        assert_eq!(bytes.len(), 14 + 20 + 8 + 112);
        assert_eq!(sum(&bytes[14..34]), u16::MAX);
        assert_eq!(bytes[16..18], 140_u16.to_be_bytes());
        assert_eq!(bytes[34..42], [15, 160, 28, 232, 0, 120, 0, 0]);
        // An example of RFC 1071.
        assert_eq!(sum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert!(frame(ends, &[0; 65_510]).is_err());
    }
}

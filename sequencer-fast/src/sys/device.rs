//! What the system tells of a network interface.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::{mem, ptr};

use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name, name_to_index};

/// Addresses of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its hardware address, if it has one of 6 bytes.
    pub(crate) mac: Option<[u8; 6]>,
    /// Its IP addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Most addresses that are looked at.
const MAX_ADDRESSES: usize = 1 << 16;

/// Looks an interface up, in the network namespace of this thread.
///
/// # Errors
/// What the system says; `NotFound` if there is no such interface.
pub(crate) fn find(name: &str) -> io::Result<Device> {
    let mut all = all()?;
    all.remove(name)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The interface that has an address, unless it is the loopback, which has addresses that are routed to this host.
///
/// # Errors
/// What the system says.
pub(crate) fn owner(ip: IpAddr) -> io::Result<Option<String>> {
    let mut all = all()?.into_iter();
    let found = all.find(|(name, device)| name != LOOPBACK && device.addresses.contains(&ip));
    Ok(found.map(|(name, _)| name))
}

const LOOPBACK: &str = "lo";

/// The number of an interface, which no other one has after it.
///
/// # Errors
/// What the system says.
pub(crate) fn index(name: &str) -> io::Result<u32> {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(name_to_index(&any, name)?)
}

/// Whether there is an interface with this number, whatever its name, as far as the system says.
pub(crate) fn exists(index: u32) -> bool {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    any.map_or(true, |any| index_to_name(&any, index) != Err(Errno::NODEV))
}

/// All interfaces, by name.
fn all() -> io::Result<BTreeMap<String, Device>> {
    let mut list = ptr::null_mut();
    // SAFETY: `list` is where the call leaves its list.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut devices, mut next) = (BTreeMap::<String, Device>::new(), list);
    for _ in 0..MAX_ADDRESSES {
        // SAFETY: null or an entry of the list, which is freed below.
        let Some(entry) = (unsafe { next.as_ref() }) else {
            break;
        };
        next = entry.ifa_next;
        // SAFETY: the name of an entry is a string of the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
        // An address may have a label: the name of its interface, and more behind a colon.
        let name = name.split(':').next().unwrap_or_default();
        devices
            .entry(name.to_owned())
            .or_default()
            .add(entry.ifa_addr);
    }
    // SAFETY: what `getifaddrs` has made; nothing of it is kept.
    unsafe { libc::freeifaddrs(list) };
    Ok(devices)
}

/// Asks for [`Driver`], and the command that asks: <linux/ethtool.h>, <linux/sockios.h>.
const GET_DRIVER: u32 = 3;
const ETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    rest: [u8; 160],
}

/// The name of an interface's driver.
///
/// # Errors
/// What the system says.
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut driver = Driver {
        command: GET_DRIVER,
        name: [0; 32],
        rest: [0; 160],
    };
    // SAFETY: all zeros are a valid value of this type.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(interface.bytes())
        .take(room)
    {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut driver).cast();
    // SAFETY: the request names an interface and a structure of the size that its command is for; both outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = driver.name.split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

impl Device {
    /// Adds the address of an entry of the list.
    fn add(&mut self, address: *const libc::sockaddr) {
        // SAFETY: null or an address of the list, which is at least as long as its head.
        let Some(head) = (unsafe { address.as_ref() }) else {
            return;
        };
        match i32::from(head.sa_family) {
            libc::AF_INET => {
                // SAFETY: an address of this family has this type.
                let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
                let bits = u32::from_be(address.sin_addr.s_addr);
                self.addresses.push(Ipv4Addr::from_bits(bits).into());
            }
            libc::AF_INET6 => {
                // SAFETY: an address of this family has this type.
                let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                self.addresses.push(ip.into());
            }
            libc::AF_PACKET => {
                // SAFETY: an address of this family has this type.
                let address = unsafe { address.cast::<libc::sockaddr_ll>().read_unaligned() };
                let [a, b, c, d, e, f, ..] = address.sll_addr;
                self.mac = (address.sll_halen == 6).then_some([a, b, c, d, e, f]);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_interface_is_there_by_its_number() {
        let index = index("lo").expect("there");
        assert!(exists(index) && !exists(u32::MAX >> 1));
        assert!(super::index("nothing0").is_err());
    }

    #[test]
    fn the_loopback_has_no_driver() {
        assert!(driver("lo").is_err());
        assert!(driver("nothing0").is_err());
    }

    #[test]
    fn the_loopback_is_found_and_nothing_else_is() {
        let device = find("lo").expect("there");
        assert_eq!(device.mac, Some([0; 6]));
        assert!(device.addresses.contains(&Ipv4Addr::LOCALHOST.into()));
        let error = find("nothing0").expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let owner = owner(Ipv4Addr::LOCALHOST.into()).expect("told");
        assert_eq!(owner, None, "what the loopback has is this host's");
    }
}

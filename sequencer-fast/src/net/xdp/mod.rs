//! The program in the driver hook that grants (`bpf/grant.bpf.c`): loaded, attached, and told of each reign.
//!
//! A reign has a program of its own, with maps of its own: a counter that was closed is never opened again, and
//! whatever core still runs the program of a reign that is over finds that counter. The programs take one another's
//! place in one link, which the kernel removes with the process, however that ends. Nothing is pinned.

mod link;
mod need;
pub(crate) mod tools;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Map, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use wire::control::ControlEntry;

use crate::config::{Hook, HookMode};
use crate::error::SequencerError;
use crate::limits::{MAX_TABLE_BLOCKS, MIN_TABLE_BLOCKS};
use crate::logic::{BLOCK_WORDS, ProgramCounts, STATE_WORDS, Table, Tail};
use crate::sys::device;
use crate::sys::mapped::Mapped;

/// The compiled program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/grant.bpf.o"));

/// An attached program, which stays attached until this is dropped or detached.
#[derive(Debug)]
pub(crate) struct Attached {
    place: Place,
    program: Mutex<Program>,
}

/// Where it is attached and what it answers to.
#[derive(Debug)]
struct Place {
    hook: Hook,
    ip: IpAddr,
    port: u16,
}

#[derive(Debug, Default)]
struct Program {
    /// The program of the newest reign.
    loaded: Option<Ebpf>,
    /// Its way into the driver.
    link: Option<FdLink>,
    /// The number of the interface that it was attached to.
    index: Option<u32>,
    /// What the programs before it have counted.
    before: ProgramCounts,
}

/// The driver that has no interrupt: without a program at its other end nobody is woken for what a program sends.
const VETH: &str = "veth";

/// What the shards of a reign need beside a program.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) tail: Tail,
    pub(crate) table: Arc<Table>,
}

impl Attached {
    /// Attaches a program that grants nothing yet.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`] that names what is missing.
    pub(crate) fn new(hook: &Hook, address: SocketAddr) -> Result<Self, SequencerError> {
        need::kernel()?;
        need::capabilities()?;
        need::time()?;
        need::constants()?;
        let place = Place {
            hook: hook.clone(),
            ip: address.ip().to_canonical(),
            port: address.port(),
        };
        place.mac()?;
        place.check()?;
        let mut ebpf = place.load(None, 0, 1)?;
        let link = link::attach_patiently(xdp(&mut ebpf, &place)?, &place.hook)?;
        let index = place.index();
        let (interface, mode) = (&place.hook.interface, place.hook.mode);
        tracing::info!(interface, %mode, "the program is attached");
        if mode == HookMode::Native && device::driver(interface).is_ok_and(|name| name == VETH) {
            tracing::warn!(
                interface,
                "clients at the other end of a veth get no answer unless it has a program as well: see docs/operating/xdp.md, or take --xdp-mode generic"
            );
        }
        Ok(Self {
            place,
            program: Mutex::new(Program {
                loaded: Some(ebpf),
                link: Some(link),
                index,
                before: ProgramCounts::default(),
            }),
        })
    }

    /// Puts a program for the reign of `entry` in the place of the one before. It grants when the reign does.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`]: sockets serve this reign alone, and the next one tries again.
    pub(crate) fn begin(
        &self,
        entry: &ControlEntry,
        blocks: usize,
        seed: u64,
    ) -> Result<Beside, SequencerError> {
        let blocks = blocks
            .clamp(MIN_TABLE_BLOCKS, MAX_TABLE_BLOCKS)
            .next_power_of_two();
        let blocks = u32::try_from(blocks).unwrap_or(1);
        let ebpf = self.place.load(Some(entry), seed, blocks)?;
        let state = mapped(&ebpf, "STATE", STATE_WORDS)?;
        let words = usize::try_from(blocks).unwrap_or(1) * BLOCK_WORDS;
        let table = mapped(&ebpf, "TABLE", words)?;
        let tail = Tail::shared(Arc::new(state), entry.epoch_start.0);
        let tail = tail.ok_or_else(|| need::refused("the state is too short".to_owned()))?;
        let beside = Beside {
            tail,
            table: Arc::new(Table::new(Arc::new(table), seed, blocks)),
        };
        self.replace(ebpf)?;
        Ok(beside)
    }

    fn replace(&self, mut ebpf: Ebpf) -> Result<(), SequencerError> {
        let mut program = self.lock();
        let next = xdp(&mut ebpf, &self.place)?;
        // The link is lost where somebody has detached the program, or the interface was made anew.
        let replaced = program.link.take().map(|link| link::replace(next, link));
        let link = match replaced.and_then(Result::ok) {
            Some(link) => link,
            None => {
                let link = link::attach(next, &self.place.hook)?;
                program.index = self.place.index();
                link
            }
        };
        program.retire();
        program.loaded = Some(ebpf);
        program.link = Some(link);
        Ok(())
    }

    /// Detaches the program; what it has counted stays.
    pub(crate) fn detach(&self) {
        let mut program = self.lock();
        program.link = None;
        program.retire();
    }

    /// Whether a program was attached and not detached by this process, to an interface that is still there.
    pub(crate) fn is_attached(&self) -> bool {
        let to = {
            let program = self.lock();
            program.link.as_ref().and(program.index)
        };
        to.is_some_and(device::exists)
    }

    /// What the programs of all reigns have counted.
    pub(crate) fn counts(&self) -> ProgramCounts {
        let program = self.lock();
        let now = program.loaded.as_ref().map(counts);
        program.before + now.unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    /// Keeps what the newest program has counted. Nobody runs it any more but who has begun with it.
    fn retire(&mut self) {
        if let Some(old) = self.loaded.take() {
            self.before = self.before + counts(&old);
        }
    }
}

impl Place {
    /// # Errors
    /// [`SequencerError::Xdp`] where the address is none that comes in by the interface.
    fn check(&self) -> Result<(), SequencerError> {
        let (ip, interface) = (self.ip, &self.hook.interface);
        if ip.is_unspecified() {
            let reason = "the sequencer has to listen on one address, that of the interface";
            return Err(need::refused(format!("{reason} listen={ip}")));
        }
        let lookup = |error| need::interface(interface, &error);
        if device::find(interface)
            .map_err(lookup)?
            .addresses
            .contains(&ip)
        {
            return Ok(());
        }
        // As where a VLAN has it: its frames pass up untouched, or have lost the tag that their replies need.
        if let Some(owner) = device::owner(ip).map_err(lookup)? {
            return Err(need::refused(format!(
                "the address is one of another interface address={ip} of={owner} interface={interface}"
            )));
        }
        tracing::warn!(%ip, interface, "the address is not one of the interface");
        Ok(())
    }

    /// The number of the interface, if it is there.
    fn index(&self) -> Option<u32> {
        device::index(&self.hook.interface).ok()
    }

    /// The hardware address of the interface, which can change.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`] where it has none.
    fn mac(&self) -> Result<[u8; 8], SequencerError> {
        let interface = &self.hook.interface;
        let device = device::find(interface).map_err(|error| need::interface(interface, &error))?;
        let [a, b, c, d, e, f] = device.mac.ok_or_else(|| {
            need::refused(format!("not an Ethernet interface interface={interface}"))
        })?;
        Ok([a, b, c, d, e, f, 0, 0])
    }

    /// Loads the program, for a reign if there is one.
    fn load(
        &self,
        entry: Option<&ControlEntry>,
        seed: u64,
        blocks: u32,
    ) -> Result<Ebpf, SequencerError> {
        for _ in 1..LOAD_TRIES {
            let loaded = self.load_once(entry, seed, blocks)?;
            match loaded {
                Err(error) if need::is_interrupted(&error) => {}
                loaded => return loaded.map_err(|error| need::verified(&error)),
            }
        }
        let loaded = self.load_once(entry, seed, blocks)?;
        loaded.map_err(|error| need::verified(&error))
    }

    /// The same once; within it whether the kernel has accepted the program.
    fn load_once(
        &self,
        entry: Option<&ControlEntry>,
        seed: u64,
        blocks: u32,
    ) -> Result<Result<Ebpf, ProgramError>, SequencerError> {
        let log = entry.map_or([0; 16], |entry| entry.log.0);
        let epoch = entry.map_or(0, |entry| entry.epoch.0);
        let mac = self.mac()?;
        let address = match self.ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            IpAddr::V6(ip) => ip.octets(),
        };
        let port = self.port.to_be_bytes();
        let generic = u32::from(self.hook.mode == HookMode::Generic);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("LOG", &log[..], true)
            .override_global("EPOCH", &epoch, true)
            .override_global("ADDRESS", &address[..], true)
            .override_global("PORT", &port[..], true)
            .override_global("MAC", &mac[..], true)
            .override_global("GENERIC", &generic, true)
            .override_global("SEED", &seed, true)
            .override_global("BLOCKS", &blocks, true)
            .map_max_entries("TABLE", blocks);
        let mut ebpf = loader.load(OBJECT).map_err(|error| need::load(&error))?;
        let loaded = xdp(&mut ebpf, self)?.load();
        Ok(loaded.map(|()| ebpf))
    }
}

/// How often a program is loaded again that the kernel was interrupted at, by a signal that this thread was to see.
const LOAD_TRIES: u32 = 5;

fn xdp<'a>(ebpf: &'a mut Ebpf, place: &Place) -> Result<&'a mut Xdp, SequencerError> {
    let name = match place.ip {
        IpAddr::V4(_) => "grant_ipv4",
        IpAddr::V6(_) => "grant_ipv6",
    };
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded);
    let program = program.and_then(TryInto::try_into);
    program.map_err(|error| need::verified(&error))
}

fn mapped(ebpf: &Ebpf, name: &'static str, words: usize) -> Result<Mapped, SequencerError> {
    let mapped = match ebpf.map(name) {
        Some(Map::Array(map)) => Mapped::new(map.fd().as_fd(), words),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    mapped.map_err(|error| need::refused(format!("cannot map memory: {error} map={name}")))
}

fn counts(ebpf: &Ebpf) -> ProgramCounts {
    let values = ebpf.map("COUNTS").and_then(|map| {
        let map = PerCpuArray::<_, [u64; ProgramCounts::WORDS]>::try_from(map).ok()?;
        map.get(&0, 0).ok()
    });
    let mut sum = ProgramCounts::default();
    for core in values.iter().flat_map(|values| values.iter()) {
        sum = sum + ProgramCounts::from(*core);
    }
    sum
}

//! What the program needs, and errors that say what of it is missing.

use std::error::Error;
use std::{fs, io};

use aya::EbpfError;
use aya::programs::ProgramError;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities as held};

use crate::config::HookMode;
use crate::error::SequencerError;

/// The first kernel whose programs have a compare-and-exchange, as this processor's translator knows it.
const LEAST_KERNEL: (u32, u32) = if cfg!(target_arch = "aarch64") {
    (5, 18)
} else {
    (5, 12)
};

/// ENOTSUPP, which is the kernel's own: there is no translator for what a program does.
const NOT_TRANSLATED: i32 = 524;

pub(super) fn refused(reason: String) -> SequencerError {
    SequencerError::Xdp { reason }
}

/// # Errors
/// If the kernel is too old.
pub(super) fn kernel() -> Result<(), SequencerError> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    if version(&release).is_none_or(|version| version >= LEAST_KERNEL) {
        return Ok(());
    }
    let (major, minor) = LEAST_KERNEL;
    Err(refused(format!(
        "Linux {major}.{minor} or later is needed kernel={release}"
    )))
}

/// The first two numbers of a release, if it begins with them.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    let (major, minor) = (numbers.next()?, numbers.next()?);
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// # Errors
/// If this process may not load or attach programs. Where the system does not say, the attempt will.
pub(super) fn capabilities() -> Result<(), SequencerError> {
    let Ok(sets) = held(None) else {
        return Ok(());
    };
    let missing = missing(sets.effective);
    if missing.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "this process may not: run it as root, or with the capabilities that are missing missing={}",
        missing.join(",")
    )))
}

fn missing(has: CapabilitySet) -> Vec<&'static str> {
    // Everything that a program may do was once allowed with SYS_ADMIN, and still is. Without PERFMON the kernel refuses
    // programs that take one pointer from another, as lengths are found.
    let or_all = |one| one | CapabilitySet::SYS_ADMIN;
    let needed = [
        ("CAP_BPF", or_all(CapabilitySet::BPF)),
        ("CAP_PERFMON", or_all(CapabilitySet::PERFMON)),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ];
    let lacking = needed.into_iter().filter(|(_, any)| !has.intersects(*any));
    lacking.map(|(name, _)| name).collect()
}

/// # Errors
/// If programs cannot have constants that are set when they are loaded, as far as the loader has found out, which it does
/// once in a process.
pub(super) fn constants() -> Result<(), SequencerError> {
    if aya::features().bpf_global_data() {
        return Ok(());
    }
    Err(refused(
        "the kernel did not load a program to try: start again, or see whether seccomp forbids it"
            .to_owned(),
    ))
}

/// # Errors
/// If the clock of this process is not that of programs, which know no time namespaces: a reign would last longer for
/// one of them (S-5).
pub(super) fn time() -> Result<(), SequencerError> {
    // Kernels without time namespaces have no such file.
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    if is_shifted(&offsets) {
        return Err(refused(
            "a program cannot keep the time of a time namespace, start it outside of one"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether the clock that counts from the start of the machine is shifted.
fn is_shifted(offsets: &str) -> bool {
    let mut lines = offsets.lines().map(str::split_whitespace);
    lines.any(|mut words| {
        let boot = matches!(words.next(), Some("boottime" | "7"));
        boot && words.any(|word| word != "0")
    })
}

pub(super) fn interface(name: &str, error: &io::Error) -> SequencerError {
    match error.kind() {
        io::ErrorKind::NotFound => refused(format!(
            "no such network interface, see ip link interface={name}"
        )),
        _ => refused(format!(
            "cannot look at the interface: {error} interface={name}"
        )),
    }
}

/// What is wrong with the program's maps.
pub(super) fn load(error: &EbpfError) -> SequencerError {
    let advice = match errno(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            ": the system lets this process make no maps, as seccomp or a limit of locked memory can"
        }
        Some(Errno::NOMEM) => {
            ": not enough memory for the maps, as sequencer.retry_memory makes them, or its cgroup allows less"
        }
        _ => "",
    };
    refused(format!("{}{advice}", chain(error)))
}

/// What is wrong with the program.
pub(super) fn verified(error: &ProgramError) -> SequencerError {
    match errno(error) {
        Some(Errno::PERM) => refused("the system lets this process load no programs".to_owned()),
        Some(errno) if errno.raw_os_error() == NOT_TRANSLATED => refused(
            "the kernel cannot translate the program for this processor: a later one can"
                .to_owned(),
        ),
        _ => refused(format!(
            "the kernel refuses the program: {}",
            last_line(error)
        )),
    }
}

/// What the kernel said in the end: what is before tells of every instruction.
fn last_line(error: &ProgramError) -> String {
    let text = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => format!("{io_error}\n{verifier_log}"),
        error => chain(error),
    };
    let lines = text.lines().rev().map(str::trim);
    let statistics = |line: &str| STATISTICS.iter().any(|start| line.starts_with(start));
    let mut said = lines.filter(|line| !line.is_empty() && !statistics(line));
    said.next().unwrap_or_default().to_owned()
}

/// Lines that the kernel ends with when it has said what it refuses.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// Why it cannot be attached.
pub(super) fn attach(interface: &str, mode: HookMode, error: &ProgramError) -> SequencerError {
    let generic = match mode {
        HookMode::Native => ", or take --xdp-mode generic",
        HookMode::Generic => "",
    };
    let reason = match errno(error) {
        // A program of the other mode is there already.
        Some(Errno::BUSY | Errno::EXIST) => {
            "another program is attached to the interface: ip link show tells which".to_owned()
        }
        Some(Errno::OPNOTSUPP) => {
            format!(
                "the driver of the interface cannot run programs, or not as it is set up (MTU, LRO, GRO, queues): change \
                 that, or update it{generic}"
            )
        }
        Some(Errno::RANGE) => format!("the MTU is too large for the driver: lower it{generic}"),
        Some(Errno::PERM) => "the system lets this process attach no programs".to_owned(),
        Some(Errno::NODEV) => "no such network interface, see ip link".to_owned(),
        _ => format!("the driver refuses the program{generic}: {}", chain(error)),
    };
    refused(format!("{reason} interface={interface} mode={mode}"))
}

/// Whether the kernel has given up verifying a program, as a signal was pending.
pub(super) fn is_interrupted(error: &ProgramError) -> bool {
    let errno = match error {
        ProgramError::LoadError { io_error, .. } => Errno::from_io_error(io_error),
        error => errno(error),
    };
    errno == Some(Errno::AGAIN)
}

/// Whether another program is attached to the interface, of this mode or the other.
pub(super) fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(Errno::BUSY | Errno::EXIST))
}

/// The number that the system gave, if it was the system.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Errno::from_io_error(io);
        }
        next = error.source();
    }
    None
}

/// An error with what caused it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        for (release, expected) in [
            ("6.18.44-x", Some((6, 18))),
            ("5.4.0", Some((5, 4))),
            ("5.12-rc1", Some((5, 12))),
            ("strange", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!((5, 9) < LEAST_KERNEL && (5, 18) >= LEAST_KERNEL && (6, 1) > LEAST_KERNEL);
    }

    #[test]
    fn s5_the_clock_of_a_time_namespace_is_noticed() {
        assert!(!is_shifted(""));
        assert!(!is_shifted(
            "monotonic           0         0\nboottime            0         0\n"
        ));
        assert!(!is_shifted(
            "monotonic           5         0\nboottime            0         0\n"
        ));
        assert!(is_shifted(
            "monotonic           0         0\nboottime      -86400         0\n"
        ));
        assert!(is_shifted(
            "monotonic           0         0\nboottime            0         7\n"
        ));
    }

    #[test]
    fn missing_capabilities_are_named() {
        let net = CapabilitySet::NET_ADMIN;
        for (has, expected) in [
            (
                CapabilitySet::empty(),
                vec!["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"],
            ),
            (net, vec!["CAP_BPF", "CAP_PERFMON"]),
            (net | CapabilitySet::BPF, vec!["CAP_PERFMON"]),
            (net | CapabilitySet::BPF | CapabilitySet::PERFMON, vec![]),
            (net | CapabilitySet::SYS_ADMIN, vec![]),
        ] {
            assert_eq!(missing(has), expected);
        }
    }

    #[test]
    fn errors_of_attaching_say_what_to_do() {
        for (number, expected) in [
            (Errno::OPNOTSUPP, "--xdp-mode generic"),
            (Errno::BUSY, "another program"),
            (Errno::EXIST, "another program"),
            (Errno::RANGE, "MTU"),
            (Errno::NODEV, "no such network interface"),
        ] {
            let error = ProgramError::SyscallError(SyscallError {
                call: "bpf_link_create",
                io_error: number.into(),
            });
            let text = attach("eth7", HookMode::Native, &error).to_string();
            assert!(text.contains(expected), "{text}");
            assert!(text.ends_with("interface=eth7 mode=native"), "{text}");
        }
    }
}

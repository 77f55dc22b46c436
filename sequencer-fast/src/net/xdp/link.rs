//! The link between a program and an interface.

use std::time::Duration;

use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpLinkId, XdpMode};
use aya::programs::{ProgramError, Xdp};

use super::need;
use crate::config::{Hook, HookMode};
use crate::error::SequencerError;

/// How often an interface with another program is tried again, and how long apart: the kernel detaches the program of a
/// killed process some time after the process is gone.
const ATTACH_TRIES: u32 = 40;
const ATTACH_PAUSE: Duration = Duration::from_millis(50);

/// Attaches a program.
///
/// # Errors
/// [`SequencerError::Xdp`].
pub(super) fn attach(program: &mut Xdp, hook: &Hook) -> Result<FdLink, SequencerError> {
    let attached = program.attach(&hook.interface, mode(hook));
    kept(program, hook, attached)
}

/// The same, where a process before this one may have left a moment ago.
///
/// # Errors
/// [`SequencerError::Xdp`].
pub(super) fn attach_patiently(program: &mut Xdp, hook: &Hook) -> Result<FdLink, SequencerError> {
    for _ in 1..ATTACH_TRIES {
        match program.attach(&hook.interface, mode(hook)) {
            Err(error) if need::is_busy(&error) => pause(),
            attached => return kept(program, hook, attached),
        }
    }
    attach(program, hook)
}

#[allow(clippy::disallowed_methods, reason = "nothing runs yet")]
fn pause() {
    std::thread::sleep(ATTACH_PAUSE);
}

fn mode(hook: &Hook) -> XdpMode {
    match hook.mode {
        HookMode::Native => XdpMode::Driver,
        HookMode::Generic => XdpMode::Skb,
    }
}

/// Puts a program in the place of the one that a link has now: no packet comes in between.
///
/// # Errors
/// What the kernel says. The link is gone then, and nothing is attached.
pub(super) fn replace(program: &mut Xdp, link: FdLink) -> Result<FdLink, ProgramError> {
    let link = XdpLink::try_from(link).map_err(|_| ProgramError::NotLoaded)?;
    let link = program.attach_to_link(link)?;
    let link = program.take_link(link)?;
    FdLink::try_from(link).map_err(|_| ProgramError::NotLoaded)
}

/// The link of an attached program. Where the kernel has given none, the program would stay behind when this process
/// is killed: then it is detached here.
fn kept(
    program: &mut Xdp,
    hook: &Hook,
    attached: Result<XdpLinkId, ProgramError>,
) -> Result<FdLink, SequencerError> {
    let link = attached.and_then(|link| program.take_link(link));
    let link = link.map_err(|error| need::attach(&hook.interface, hook.mode, &error))?;
    // Nothing else tells which kind it is: one without a link of the kernel is detached when it is dropped here, and not
    // once it was taken apart.
    if format!("{link:?}").contains("NlLink") {
        return Err(no_link(hook));
    }
    FdLink::try_from(link).map_err(|_| no_link(hook))
}

fn no_link(hook: &Hook) -> SequencerError {
    let interface = &hook.interface;
    need::refused(format!(
        "the kernel gives no link for a program at this interface interface={interface}"
    ))
}

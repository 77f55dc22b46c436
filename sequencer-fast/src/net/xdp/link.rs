//! The link between a program and an interface.

use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpLinkId, XdpMode};
use aya::programs::{ProgramError, Xdp};

use super::need;
use crate::config::{Hook, HookMode};
use crate::error::SequencerError;

/// Attaches a program.
///
/// # Errors
/// [`SequencerError::Xdp`].
pub(super) fn attach(program: &mut Xdp, hook: &Hook) -> Result<FdLink, SequencerError> {
    let mode = match hook.mode {
        HookMode::Native => XdpMode::Driver,
        HookMode::Generic => XdpMode::Skb,
    };
    let attached = program.attach(&hook.interface, mode);
    kept(program, hook, attached)
}

/// Puts a program in the place of the one that a link has now: no packet comes in between.
///
/// # Errors
/// [`SequencerError::Xdp`]. The link is gone then, and nothing is attached.
pub(super) fn replace(
    program: &mut Xdp,
    link: FdLink,
    hook: &Hook,
) -> Result<FdLink, SequencerError> {
    let link = XdpLink::try_from(link);
    let link = link.map_err(|error| need::refused(format!("the link is lost: {error}")))?;
    let attached = program.attach_to_link(link);
    kept(program, hook, attached)
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
    FdLink::try_from(link).map_err(|_| {
        let interface = &hook.interface;
        need::refused(format!(
            "the driver takes no program by a link interface={interface}"
        ))
    })
}

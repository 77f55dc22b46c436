//! A batch of request datagrams that has been received and not answered yet.

use wire::datagram::{Datagram, Grant, Header, Kind, Report};
use wire::{LogId, WireError};

/// Requests in the order in which they came.
#[derive(Debug)]
pub(crate) struct Batch<P> {
    datagrams: Vec<Staged<P>>,
    grants: Vec<Grant>,
    reports: Vec<Report>,
}

/// A request datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staged<P> {
    pub(crate) peer: P,
    pub(crate) header: Header,
    pub(crate) kind: Kind,
    first: usize,
    count: usize,
}

/// The entries of a request datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Requests<'a> {
    Grants(&'a [Grant]),
    GrantsAt(&'a [Grant]),
    Tails(&'a [Grant]),
    Reports(&'a [Report]),
}

impl<'a> Requests<'a> {
    /// The requests, if they are for grants.
    pub(crate) fn grants(self) -> Option<&'a [Grant]> {
        match self {
            Self::Grants(grants) | Self::GrantsAt(grants) => Some(grants),
            Self::Tails(_) | Self::Reports(_) => None,
        }
    }
}

impl<P: Copy> Batch<P> {
    /// An empty batch with room for `entries`.
    pub(crate) fn new(entries: usize) -> Self {
        Self {
            datagrams: Vec::with_capacity(entries),
            grants: Vec::with_capacity(entries),
            reports: Vec::new(),
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.grants.len() + self.reports.len()
    }

    pub(crate) fn clear(&mut self) {
        self.datagrams.clear();
        self.grants.clear();
        self.reports.clear();
    }

    /// Number of datagrams.
    pub(crate) fn datagrams(&self) -> usize {
        self.datagrams.len()
    }

    /// The datagrams in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Staged<P>> {
        self.datagrams.iter().copied()
    }

    /// The entries of a datagram.
    pub(crate) fn requests(&self, staged: &Staged<P>) -> Requests<'_> {
        let range = staged.first..staged.first + staged.count;
        let grants = self.grants.get(range.clone()).unwrap_or(&[]);
        match staged.kind {
            Kind::Grant => Requests::Grants(grants),
            Kind::GrantAt => Requests::GrantsAt(grants),
            Kind::Tail => Requests::Tails(grants),
            Kind::Report => Requests::Reports(self.reports.get(range).unwrap_or(&[])),
        }
    }

    /// Checks a datagram and keeps it for the batch.
    ///
    /// # Errors
    /// The check that failed; nothing is kept then.
    pub(crate) fn stage(&mut self, peer: P, bytes: &[u8], log: LogId) -> Result<(), WireError> {
        let datagram = Datagram::parse(bytes, log)?;
        if datagram.header.is_reply() {
            // [S-9] Else two sequencers could be made to talk to each other.
            return Err(WireError::Malformed { what: "request" });
        }
        let first = match datagram.kind {
            Kind::Report => extend(&mut self.reports, datagram.entries())?,
            Kind::Grant | Kind::GrantAt | Kind::Tail => {
                extend(&mut self.grants, datagram.entries())?
            }
        };
        self.datagrams.push(Staged {
            peer,
            header: datagram.header,
            kind: datagram.kind,
            first,
            count: datagram.header.count(),
        });
        Ok(())
    }
}

/// Appends all items or none, and returns the index of the first.
fn extend<T>(
    to: &mut Vec<T>,
    items: impl Iterator<Item = Result<T, WireError>>,
) -> Result<usize, WireError> {
    let first = to.len();
    for item in items {
        match item {
            Ok(item) => to.push(item),
            Err(error) => {
                to.truncate(first);
                return Err(error);
            }
        }
    }
    Ok(first)
}

//! Structures of fixed size, read and written in place.
//!
//! rkyv with unaligned little-endian primitives lays such a structure out as its fields in order,
//! without padding, so that it may stand at any offset of a datagram or frame.

use rkyv::api::low::LowValidator;
use rkyv::api::serialize_using;
use rkyv::bytecheck::CheckBytes;
use rkyv::de::Pool;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::writer::Buffer;
use rkyv::{Archive, Deserialize, Portable, Serialize};

use crate::WireError;

/// A structure whose encoding has a fixed size and no pointers.
pub trait Fixed: Sized {
    /// Encoded size in bytes.
    const SIZE: usize;

    /// Reads the structure from the first [`Self::SIZE`] bytes.
    ///
    /// # Errors
    /// [`WireError::Short`], or [`WireError::Malformed`] if a field has an impossible value.
    fn read(bytes: &[u8]) -> Result<Self, WireError>;

    /// Writes the structure to the first [`Self::SIZE`] bytes.
    ///
    /// # Errors
    /// [`WireError::Short`] if there is no room.
    fn write(&self, out: &mut [u8]) -> Result<(), WireError>;

    /// The encoding as bytes of its own.
    fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; Self::SIZE];
        debug_assert!(self.write(&mut out).is_ok());
        let _ = self.write(&mut out);
        out
    }
}

impl<T> Fixed for T
where
    T: Archive,
    T: for<'a> Serialize<Strategy<Buffer<'a>, Failure>>,
    T::Archived: Portable
        + for<'a> CheckBytes<LowValidator<'a, Failure>>
        + Deserialize<T, Strategy<Pool, Failure>>,
{
    const SIZE: usize = size_of::<T::Archived>();

    fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let bytes = head(bytes, Self::SIZE)?;
        let malformed = |_: Failure| WireError::Malformed { what: "structure" };
        let archived = rkyv::api::low::access::<T::Archived, Failure>(bytes).map_err(malformed)?;
        archived
            .deserialize(Strategy::wrap(&mut Pool::new()))
            .map_err(malformed)
    }

    fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let (got, need) = (out.len(), Self::SIZE);
        let short = WireError::Short { got, need };
        let place = out.get_mut(..need).ok_or(short)?;
        let mut buffer = Buffer::from(place);
        serialize_using::<_, Failure>(self, &mut buffer).map_err(|_| short)?;
        Ok(())
    }
}

/// The first `need` bytes.
pub(crate) fn head(bytes: &[u8], need: usize) -> Result<&[u8], WireError> {
    let got = bytes.len();
    bytes.get(..need).ok_or(WireError::Short { got, need })
}

//! The keyed checksum of datagrams: who has not the key can neither ask nor answer.
//!
//! AEGIS-128L as a message authentication code (RFC 10032), one a datagram. What goes into it are the
//! entries, filled up with zeros to a multiple of 32 bytes, and then the header, its `mac` field replaced by
//! the length of the datagram (8 bytes) and 8 zeros. Whole blocks spare the code below the handling of a
//! broken one; the header, which has to be copied for that, comes last because a block that was just written
//! is slow to read: together that is a third of the cost of a short datagram.
//!
//! It is deterministic: nothing is counted, nothing has to be stored, and a repeated datagram has the same
//! field. That a reply is not taken for a request, nor one log's datagram for another's, follows from the
//! header, which is covered. Why this one: `docs/decisions/0012-datagram-mac.md`.

use std::fmt;
use std::hint::black_box;

use aegis::aegis128l::Aegis128LMac;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::datagram::HEADER_BYTES;

/// Bytes of a key; as text it has twice as many hexadecimal digits.
pub const KEY_BYTES: usize = 32;

/// Bytes of the `mac` field.
pub const MAC_BYTES: usize = 16;

/// Bytes that AEGIS-128L takes at once.
const RATE: usize = 32;

const _: () = assert!(HEADER_BYTES.is_multiple_of(RATE));

/// Where the `mac` field begins. It ends with the header.
const MAC_AT: usize = HEADER_BYTES - MAC_BYTES;

/// Bytes of an AEGIS-128L key, and of its nonce.
const HALF: usize = KEY_BYTES / 2;

type State = Aegis128LMac<MAC_BYTES>;

/// The key that all processes of a log share.
///
/// Its clones are independent, and it may be used from several threads at once.
#[derive(Clone)]
pub struct Key {
    /// The state after the key and the nonce, from which every datagram starts and which it leaves.
    start: State,
}

/// Why a text is not a key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Too short or too long.
    #[error("a key is one line of 64 hexadecimal digits: got={got} characters")]
    Length {
        /// Characters that are there, without the white space around them.
        got: usize,
    },
    /// Something else than a hexadecimal digit.
    #[error("a key is one line of 64 hexadecimal digits: character {at} is none")]
    Digit {
        /// Which one, counted from 1.
        at: usize,
    },
}

impl Key {
    /// A key from its bytes, which have to be drawn at random.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let (mut key, mut nonce) = ([0; HALF], [0; HALF]);
        // The nonce may be fixed where AEGIS is used as a MAC, and need not be secret.
        key.copy_from_slice(&bytes[..HALF]);
        nonce.copy_from_slice(&bytes[HALF..]);
        let start = State::new_with_nonce(&key, &nonce);
        Self { start }
    }

    /// Reads a key as a key file has it: 64 hexadecimal digits, with nothing but white space around them.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let digits: Vec<char> = text.chars().collect();
        if let Some(at) = digits.iter().position(|digit| !digit.is_ascii_hexdigit()) {
            return Err(KeyError::Digit { at: at + 1 });
        }
        let mut bytes = [0; KEY_BYTES];
        let got = digits.len();
        if got != 2 * KEY_BYTES {
            return Err(KeyError::Length { got });
        }
        for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in digits {
                let digit = digit
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok());
                *byte = *byte << 4 | digit.unwrap_or(0);
            }
        }
        Ok(Self::new(&bytes))
    }

    /// The same key for a thread that signs and checks many datagrams: it spares each of them a copy of the
    /// state.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer(self.clone())
    }

    /// Fills in the `mac` field of a datagram. What is shorter than a header has none and stays as it is.
    pub fn sign(&self, datagram: &mut [u8]) {
        sign(&mut self.start.clone(), datagram);
    }

    /// Whether the `mac` field of a datagram is right. How long this takes does not tell where it is wrong.
    #[must_use]
    pub fn verify(&self, datagram: &[u8]) -> bool {
        verify(&mut self.start.clone(), datagram)
    }
}

/// A [`Key`] in the hands of one thread.
#[derive(Debug, Clone)]
pub struct Signer(Key);

impl Signer {
    /// As [`Key::sign`].
    #[inline]
    pub fn sign(&mut self, datagram: &mut [u8]) {
        sign(&mut self.0.start, datagram);
    }

    /// As [`Key::verify`].
    #[inline]
    #[must_use]
    pub fn verify(&mut self, datagram: &[u8]) -> bool {
        verify(&mut self.0.start, datagram)
    }
}

#[inline]
fn sign(state: &mut State, datagram: &mut [u8]) {
    if let Some(mac) = mac(state, datagram)
        && let Some(field) = datagram.get_mut(MAC_AT..HEADER_BYTES)
    {
        field.copy_from_slice(&mac);
    }
}

#[inline]
fn verify(state: &mut State, datagram: &[u8]) -> bool {
    let field = datagram.get(MAC_AT..).and_then(|rest| rest.first_chunk());
    match (mac(state, datagram), field) {
        // As two numbers: to compare byte by byte costs 20 ns.
        (Some(mac), Some(field)) => u128::from_le_bytes(mac)
            .ct_eq(&u128::from_le_bytes(*field))
            .into(),
        _ => false,
    }
}

/// The code of a datagram. The state is afterwards as it was before.
#[inline]
fn mac(state: &mut State, datagram: &[u8]) -> Option<[u8; MAC_BYTES]> {
    let (header, entries) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let (whole, broken) = entries.as_chunks::<RATE>();
    state.update(whole.as_flattened());
    let mut end = [0; RATE + HEADER_BYTES];
    let (last, head) = end.split_first_chunk_mut::<RATE>()?;
    last.get_mut(..broken.len())?.copy_from_slice(broken);
    head.copy_from_slice(header);
    let length = u128::try_from(datagram.len()).ok()?.to_le_bytes();
    head.get_mut(MAC_AT..)?.copy_from_slice(&length);
    let from = if broken.is_empty() { RATE } else { 0 };
    state.update(end.get(from..)?);
    // To finish by value would move the state once more.
    Some(state.finalize_and_reset())
}

impl Drop for Key {
    fn drop(&mut self) {
        self.start = State::new(&[0; HALF]);
        // The compiler could leave out a write that nobody reads.
        black_box(&self.start);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]
mod tests {
    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    fn key() -> Key {
        Key::parse(DIGITS).expect("a key")
    }

    fn datagram() -> Vec<u8> {
        (0..112).collect()
    }

    /// The description in `docs/formats.md`, word by word, for all lengths that datagrams have and others.
    #[test]
    fn it_is_the_mac_of_filled_up_entries_and_a_header_with_the_length() {
        let bytes: Vec<u8> = (0..32).collect();
        let halves = bytes.split_at(16);
        let (Ok(half), Ok(other)) = (halves.0.try_into(), halves.1.try_into()) else {
            unreachable!("two halves");
        };
        for len in 64..1473_usize {
            let datagram: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut signed = datagram.clone();
            key().sign(&mut signed);
            let mut filled = datagram[64..].to_vec();
            filled.resize((len - 64).div_ceil(32) * 32, 0);
            filled.extend(&datagram[..48]);
            filled.extend((len as u64).to_le_bytes());
            filled.extend([0; 8]);
            let mut mac = Aegis128LMac::<16>::new_with_nonce(&half, &other);
            mac.update(&filled);
            assert_eq!(signed[48..64], mac.finalize());
            assert_eq!(signed[..48], datagram[..48]);
            assert_eq!(signed[64..], datagram[64..]);
        }
    }

    #[test]
    fn a_signer_does_as_its_key_datagram_after_datagram() {
        let mut signer = key().signer();
        for entries in [1, 29, 2, 1, 28] {
            let mut one = vec![9; 64 + 48 * entries];
            let mut other = one.clone();
            signer.sign(&mut one);
            key().sign(&mut other);
            assert_eq!(one, other);
            assert!(signer.verify(&one) && key().verify(&one));
            one[70] ^= 1;
            assert!(!signer.verify(&one));
        }
    }

    #[test]
    fn what_the_field_held_before_does_not_matter() {
        let (mut one, mut other) = (datagram(), datagram());
        other[48..64].fill(0xee);
        assert!(!key().verify(&one) && !key().verify(&other));
        key().sign(&mut one);
        key().sign(&mut other);
        assert_eq!(one, other);
        assert!(key().verify(&one));
        assert!(!Key::new(&[7; 32]).verify(&one), "another key");
    }

    #[test]
    fn what_has_no_header_is_never_right() {
        for len in 0..64 {
            let mut short = datagram();
            short.truncate(len);
            key().sign(&mut short);
            assert_eq!(short, datagram()[..len]);
            assert!(!key().verify(&short));
        }
    }

    #[test]
    fn texts_that_are_no_keys_are_refused_without_being_told() {
        let length = |got| Err(KeyError::Length { got });
        for (text, expected) in [
            ("", length(0)),
            ("abc", length(3)),
            (&DIGITS[1..], length(63)),
            (&format!("{DIGITS}0"), length(65)),
            (&DIGITS.replace('4', "g"), Err(KeyError::Digit { at: 10 })),
            (
                &format!("{DIGITS}\n{DIGITS}"),
                Err(KeyError::Digit { at: 65 }),
            ),
            ("\u{fffd}", Err(KeyError::Digit { at: 1 })),
        ] {
            assert_eq!(Key::parse(text).map(|_| ()), expected, "{text}");
        }
        let mut signed = datagram();
        Key::parse(&format!(" {DIGITS}\r\n"))
            .expect("a key")
            .sign(&mut signed);
        assert!(key().verify(&signed));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", key()), "Key { .. }");
    }
}

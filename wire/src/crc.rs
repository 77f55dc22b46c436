use crc_fast::CrcAlgorithm;

/// CRC32C (Castagnoli, as in RFC 3720 appendix B.4) over all parts in order, as if they were one run.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    u32::try_from(digest.finalize()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    /// Vectors of RFC 3720, B.4, and the usual check value.
    #[test]
    fn matches_published_vectors() {
        assert_eq!(crc32c(&[&[0_u8; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff_u8; 32]]), 0x62a8_ab43);
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
    }

    #[test]
    fn parts_are_one_run() {
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), crc32c(&[b"123456789"]));
    }
}

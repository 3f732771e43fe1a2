//! Token segments of equal length.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sparsellm_checkpoint::hex;
use std::ops::Range;

/// Token segments of equal length, for calibration or measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segments {
    /// The token ids of all segments, concatenated.
    pub tokens: Vec<u32>,
    /// The number of tokens per segment.
    pub seq_len: usize,
}

impl Segments {
    /// Splits `tokens` into consecutive segments of `seq_len` tokens each.
    pub fn new(tokens: Vec<u32>, seq_len: usize) -> Segments {
        Segments { tokens, seq_len }
    }

    /// Returns the SHA-256 of the token ids, in hexadecimal. Each id is hashed as four bytes,
    /// little-endian.
    pub fn digest(&self) -> String {
        let mut sha = Sha256::new();
        self.tokens.iter().for_each(|token| sha.update(token.to_le_bytes()));
        hex(&sha.finalize())
    }

    /// Returns where the tokens of a segment are among all.
    pub fn rows(&self, segment: usize) -> Range<usize> {
        segment * self.seq_len..(segment + 1) * self.seq_len
    }

    /// Returns some of the segments.
    pub fn part(&self, range: Range<usize>) -> Segments {
        let tokens = self.tokens[range.start * self.seq_len..range.end * self.seq_len].to_vec();
        Segments::new(tokens, self.seq_len)
    }

    /// Returns the segments one by one.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.tokens.chunks_exact(self.seq_len.max(1))
    }

    /// Returns the number of segments.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.seq_len.max(1)
    }
}

//! Token segments of one length.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sparsellm_checkpoint::hex;

/// Token segments of one length, to calibrate or to measure on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segments {
    /// The token ids of all segments, one segment after another.
    pub tokens: Vec<u32>,
    /// How many tokens a segment has.
    pub seq_len: usize,
}

impl Segments {
    /// Makes segments of `seq_len` tokens each, which lie one after another in `tokens`.
    pub fn new(tokens: Vec<u32>, seq_len: usize) -> Segments {
        Segments { tokens, seq_len }
    }

    /// Returns the SHA-256 of the token ids, as hex. Each id counts as four bytes, the
    /// lowest first.
    pub fn digest(&self) -> String {
        let mut sha = Sha256::new();
        self.tokens.iter().for_each(|token| sha.update(token.to_le_bytes()));
        hex(&sha.finalize())
    }

    /// Returns the number of segments.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.seq_len.max(1)
    }
}

//! The positions of rows of hidden states in their texts.

/// Rows are whole segments of one length, one after another; or, after a
/// [cache](crate::KeyValueCache) of earlier tokens, the next tokens of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Rows per segment.
    pub seq_len: usize,
    /// The position of a segment's first row.
    pub first: usize,
}

impl Positions {
    /// Segments of `seq_len` rows that begin at position 0.
    pub fn segments(seq_len: usize) -> Self {
        Positions { seq_len, first: 0 }
    }

    /// The next `rows` tokens of a text of which `first` came before.
    pub fn after(first: usize, rows: usize) -> Self {
        Positions { seq_len: rows, first }
    }

    /// The position of a row.
    pub fn position(&self, row: usize) -> usize {
        self.first + row % self.seq_len.max(1)
    }

    /// One more than the largest position.
    pub fn end(&self) -> usize {
        self.first + self.seq_len
    }
}

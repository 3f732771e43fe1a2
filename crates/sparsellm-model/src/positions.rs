//! The positions of rows of hidden states in their texts.

/// Which positions of their texts the rows of hidden states have. The rows are whole segments
/// of one length, one after another, or the next tokens of one text after those in a
/// [cache](crate::KeyValueCache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The rows of a segment.
    pub seq_len: usize,
    /// The position of a segment's first row.
    pub first: usize,
}

impl Positions {
    /// Segments of `seq_len` rows that begin at position 0.
    pub fn segments(seq_len: usize) -> Self {
        Positions { seq_len, first: 0 }
    }

    /// The next `rows` tokens of a text, after its `first` tokens.
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

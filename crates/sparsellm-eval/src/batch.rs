//! The size of a batch of hidden states.

/// How many f32 values of hidden states are kept in memory at once. Each decoder layer is loaded
/// once for every batch of this size.
pub const HIDDEN_VALUES: usize = 1 << 26;

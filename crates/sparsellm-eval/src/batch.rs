//! How many hidden states are kept at once.

/// The f32 values of hidden states that are kept at once. Each decoder layer is
/// loaded once for that many.
pub const HIDDEN_VALUES: usize = 1 << 26;

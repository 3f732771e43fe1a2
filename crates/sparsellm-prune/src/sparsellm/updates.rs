//! The operations that differ between plain and gated networks.

/// φ, and the updates of its arguments. Slices hold one token's d_ff elements; `pre`
/// and `state` hold its z (plain networks), or its z and then its s (gated ones).
pub trait Updates: Sync {
    /// `φ(z[, s])`, into `a`.
    fn phi(&self, pre: &[f32], a: &mut [f32]);

    /// The derivatives of φ by z (and s), at `pre`.
    fn slopes(&self, pre: &[f32], slopes: &mut [f32]);

    /// Moves z (and s) to lower the objective, given `a` and the first linears'
    /// outputs `pre` (m, and g).
    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]);
}

//! The operations that differ between plain and gated networks.

/// The activation φ and the updates of its arguments, for one token. `a` holds d_ff elements;
/// `pre`, `slopes` and `state` hold as many for z (plain networks), or for z and then for s (gated
/// networks).
pub trait Updates: Sync {
    /// Writes `φ(z[, s])` at `pre` into `a`.
    fn phi(&self, pre: &[f32], a: &mut [f32]);

    /// Writes the derivatives of φ with respect to z (and s) at `pre` into `slopes`.
    fn slopes(&self, pre: &[f32], slopes: &mut [f32]);

    /// Moves z (and s) in `state` so that the objective falls, given `a` and the first linears'
    /// outputs `pre` (m, and g).
    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]);
}

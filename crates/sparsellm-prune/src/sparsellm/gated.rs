//! The updates for gated networks (LLaMA's SwiGLU, Gemma's GeGLU).

use super::{
    newton::{Newton, load},
    updates::Updates,
};
use sparsellm_tensor::{Scalar, vectorized};

/// The updates for `a = f(s) ⊙ z`, with penalties α and β.
#[derive(Clone, Copy, Debug)]
pub struct Gated<F> {
    /// The penalty of the linear constraints.
    pub alpha: f32,
    /// The penalty of the activation constraint.
    pub beta: f32,
    /// The gate's activation f.
    pub f: F,
}

impl<F: Scalar> Gated<F> {
    /// `z = (αm + β f(s) a)/(α + β f(s)²)`, the minimiser of
    /// `α(z − m)² + β(a − f(s) z)²`.
    #[inline(always)]
    pub fn z(&self, a: f32, m: f32, s: f32) -> f32 {
        let f = self.f.value(s);
        (self.alpha * m + self.beta * f * a) / (self.alpha + self.beta * f * f)
    }

    /// The terms of the objective that involve s: `α(s − g)² + β(a − f(s) z)²`.
    #[inline(always)]
    pub fn objective(&self, a: f32, g: f32, z: f32, s: f32) -> f32 {
        self.newton().objective(a, g, z, s, self.f.value(s))
    }

    fn newton(&self) -> Newton<F> {
        Newton { alpha: self.alpha, beta: self.beta, f: self.f }
    }
}

impl<F: Scalar> Updates for Gated<F> {
    fn phi(&self, pre: &[f32], a: &mut [f32]) {
        let (z, s) = pre.split_at(a.len());
        vectorized(
            #[inline(always)]
            || {
                for ((a, z), s) in a.iter_mut().zip(z).zip(s) {
                    *a = self.f.value(*s) * z;
                }
            },
        );
    }

    fn slopes(&self, pre: &[f32], slopes: &mut [f32]) {
        let (z, s) = pre.split_at(pre.len() / 2);
        let (dz, ds) = slopes.split_at_mut(z.len());
        vectorized(
            #[inline(always)]
            || {
                let slopes = dz.iter_mut().zip(ds.iter_mut());
                for ((dz, ds), (z, s)) in slopes.zip(z.iter().zip(s)) {
                    let (f, slope) = self.f.value_and_slope(*s);
                    (*dz, *ds) = (f, slope * z);
                }
            },
        );
    }

    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]) {
        let ((m, g), (z, s)) = (pre.split_at(a.len()), state.split_at_mut(a.len()));
        vectorized(
            #[inline(always)]
            || {
                for (((z, &s), &a), &m) in z.iter_mut().zip(s.iter()).zip(a).zip(m) {
                    *z = self.z(a, m, s);
                }
                self.newton().move_all(
                    a,
                    g,
                    #[inline(always)]
                    |lanes| load(&z[lanes]),
                    s,
                );
            },
        );
    }
}

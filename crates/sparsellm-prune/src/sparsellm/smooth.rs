//! The updates for plain networks with an activation other than ReLU (GPT-NeoX).

use super::{
    newton::{LANES, Newton},
    updates::Updates,
};
use sparsellm_tensor::{Scalar, vectorized};

/// The updates for `a = f(z)`, with penalties α and β. As z has no closed form, it takes the same
/// safeguarded Newton steps as the s of gated networks.
#[derive(Clone, Copy, Debug)]
pub struct Smooth<F> {
    /// The penalty of the linear constraints.
    pub alpha: f32,
    /// The penalty of the activation constraint.
    pub beta: f32,
    /// The activation f.
    pub f: F,
}

impl<F: Scalar> Smooth<F> {
    /// The terms of the objective that involve z: `β(a − f(z))² + α(z − m)²`.
    #[inline(always)]
    pub fn objective(&self, a: f32, m: f32, z: f32) -> f32 {
        self.newton().objective(a, m, 1.0, z, self.f.value(z))
    }

    fn newton(&self) -> Newton<F> {
        Newton { alpha: self.alpha, beta: self.beta, f: self.f }
    }
}

impl<F: Scalar> Updates for Smooth<F> {
    fn phi(&self, pre: &[f32], a: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || a.iter_mut().zip(pre).for_each(|(a, z)| *a = self.f.value(*z)),
        );
    }

    fn slopes(&self, pre: &[f32], slopes: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || slopes.iter_mut().zip(pre).for_each(|(d, z)| *d = self.f.value_and_slope(*z).1),
        );
    }

    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || {
                self.newton().move_all(
                    a,
                    pre,
                    #[inline(always)]
                    |_| [1.0; LANES],
                    state,
                )
            },
        );
    }
}

//! The updates for ReLU networks (OPT).

use super::updates::Updates;
use sparsellm_tensor::{Relu, Scalar, vectorized};

/// The updates for `a = relu(z)`, with penalties α and β.
#[derive(Clone, Copy, Debug)]
pub struct ReluUpdates {
    /// The penalty of the linear constraints.
    pub alpha: f32,
    /// The penalty of the activation constraint.
    pub beta: f32,
}

impl ReluUpdates {
    /// The terms of the objective that involve z: `β(a − relu(z))² + α(z − m)²`.
    #[inline(always)]
    pub fn objective(&self, a: f32, m: f32, z: f32) -> f32 {
        let (activation, linear) = (a - Relu.value(z), z - m);
        self.beta * activation * activation + self.alpha * linear * linear
    }

    /// The z that minimises [`objective`](Self::objective): the better of
    /// `z⁺ = max(0, (βa + αm)/(α + β))` and `z⁻ = min(0, m)`.
    #[inline(always)]
    pub fn z(&self, a: f32, m: f32) -> f32 {
        let positive = ((self.beta * a + self.alpha * m) / (self.alpha + self.beta)).max(0.0);
        let negative = m.min(0.0);
        if self.objective(a, m, positive) <= self.objective(a, m, negative) {
            positive
        } else {
            negative
        }
    }
}

impl Updates for ReluUpdates {
    fn phi(&self, pre: &[f32], a: &mut [f32]) {
        a.iter_mut().zip(pre).for_each(|(a, z)| *a = Relu.value(*z));
    }

    fn slopes(&self, pre: &[f32], slopes: &mut [f32]) {
        slopes.iter_mut().zip(pre).for_each(|(d, z)| *d = f32::from(*z > 0.0));
    }

    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || {
                for ((z, &a), &m) in state.iter_mut().zip(a).zip(pre) {
                    *z = self.z(a, m);
                }
            },
        );
    }
}

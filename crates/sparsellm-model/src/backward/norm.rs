//! The backward pass of a norm.

use super::NormGradient;
use crate::Norm;
use sparsellm_tensor::{Matrix, View};

impl NormGradient {
    /// For `Y = norm(X)`, adds the gradients of the norm's parameters, and returns `∂L/∂X`.
    ///
    /// With `g = weight ⊙ ∂L/∂y` and n features,
    ///
    /// ```text
    /// RMS:    x̂ = x·r,        r = 1/√(mean(x²) + ε),   ∂L/∂x = r·(g − x̂·mean(g ⊙ x̂))
    /// layer:  x̂ = (x − μ)·r,  r = 1/√(var(x) + ε),     ∂L/∂x = r·(g − mean(g) − x̂·mean(g ⊙ x̂))
    /// ∂L/∂weight = Σ ∂L/∂y ⊙ x̂,    ∂L/∂bias = Σ ∂L/∂y
    /// ```
    pub(crate) fn backward(&mut self, norm: &Norm, x: View, dy: View) -> Matrix {
        let mut dx = Matrix::zeros(x.rows, x.cols);
        let rows = x.data.chunks_exact(x.cols).zip(dy.data.chunks_exact(x.cols));
        for ((x, dy), dx) in rows.zip(dx.data.chunks_exact_mut(x.cols)) {
            self.row(norm, x, dy, dx);
        }
        dx
    }

    fn row(&mut self, norm: &Norm, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        // Sums are taken in f64: a few hidden states have features that dwarf the others.
        let n = x.len() as f64;
        let mean = |f: &dyn Fn(usize) -> f64| (0..x.len()).map(f).sum::<f64>() / n;
        let (weight, eps, centred) = match norm {
            Norm::Rms { weight, eps, .. } => (Some(weight), *eps, false),
            Norm::Layer { weight, eps, .. } => (weight.as_ref(), *eps, true),
        };
        let mu = if centred { mean(&|j| f64::from(x[j])) } else { 0.0 };
        let power = mean(&|j| (f64::from(x[j]) - mu).powi(2));
        let r = 1.0 / (power + f64::from(eps)).sqrt();
        let hat = |j: usize| (f64::from(x[j]) - mu) * r;
        let g = |j: usize| f64::from(dy[j]) * weight.map_or(1.0, |w| f64::from(w[j]));
        let along = mean(&|j| g(j) * hat(j));
        let shift = if centred { mean(&g) } else { 0.0 };
        for (j, dx) in dx.iter_mut().enumerate() {
            *dx = (r * (g(j) - shift - hat(j) * along)) as f32;
        }
        self.weight.iter_mut().enumerate().for_each(|(j, sum)| *sum += dy[j] * hat(j) as f32);
        self.bias.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
    }
}

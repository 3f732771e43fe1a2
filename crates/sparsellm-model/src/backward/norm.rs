//! The backward pass of a norm.

use super::NormGradient;
use crate::Norm;
use rayon::prelude::*;
use sparsellm_tensor::{Matrix, View};

/// Rows that are taken together; each group has sums of its own.
const ROWS: usize = 64;

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
        let piece = ROWS * x.cols;
        let pieces = x.data.par_chunks(piece).zip(dy.data.par_chunks(piece));
        let parts: Vec<NormGradient> = pieces
            .zip(dx.data.par_chunks_mut(piece))
            .map(|((xs, dys), dxs)| {
                let mut part = NormGradient::zeros(Some(norm));
                let rows = xs.chunks_exact(x.cols).zip(dys.chunks_exact(x.cols));
                rows.zip(dxs.chunks_exact_mut(x.cols))
                    .for_each(|((x, dy), dx)| part.row(norm, x, dy, dx));
                part
            })
            .collect();
        for part in &parts {
            add(&mut self.weight, &part.weight);
            add(&mut self.bias, &part.bias);
        }
        dx
    }

    fn row(&mut self, norm: &Norm, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        // Sums are taken in f64: a few hidden states have features that dwarf the others.
        let n = x.len();
        let (weight, eps, centred) = match norm {
            Norm::Rms { weight, eps, .. } => (Some(weight), *eps, false),
            Norm::Layer { weight, eps, .. } => (weight.as_ref(), *eps, true),
        };
        let mu = if centred { sum(n, |j| f64::from(x[j])) / n as f64 } else { 0.0 };
        let power = sum(n, |j| (f64::from(x[j]) - mu).powi(2)) / n as f64;
        let r = 1.0 / (power + f64::from(eps)).sqrt();
        let hat = |j: usize| (f64::from(x[j]) - mu) * r;
        let g = |j: usize| f64::from(dy[j]) * weight.map_or(1.0, |w| f64::from(w[j]));
        let along = sum(n, |j| g(j) * hat(j)) / n as f64;
        let shift = if centred { sum(n, g) / n as f64 } else { 0.0 };
        for (j, dx) in dx.iter_mut().enumerate() {
            *dx = (r * (g(j) - shift - hat(j) * along)) as f32;
        }
        self.weight.iter_mut().enumerate().for_each(|(j, sum)| *sum += f64::from(dy[j]) * hat(j));
        self.bias.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += f64::from(*dy));
    }
}

/// `Σ f(j)` over n features, in eight lanes.
fn sum(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    for first in (0..n / 8 * 8).step_by(8) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += f(first + i);
        }
    }
    lanes.iter().sum::<f64>() + (n / 8 * 8..n).map(f).sum::<f64>()
}

/// `sums += part`, of which f64 keeps all bits.
fn add(sums: &mut [f64], part: &[f64]) {
    sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part as f32));
}

//! Normalisation layers.

use rayon::prelude::*;
use sparsellm_tensor::{Matrix, View, vectorized};

/// A normalisation over the last dimension.
#[derive(Clone, Debug)]
pub enum Norm {
    /// `x / sqrt(mean(x²) + ε) ⊙ weight` (LLaMA).
    Rms {
        /// Per-feature scale.
        weight: Vec<f32>,
        /// ε.
        eps: f32,
        /// Where the scale is stored.
        stored: Stored,
    },
    /// `(x − mean) / sqrt(var + ε) ⊙ weight + bias` (OPT).
    Layer {
        /// Per-feature scale, where there is one.
        weight: Option<Vec<f32>>,
        /// Per-feature offset, where there is one.
        bias: Option<Vec<f32>>,
        /// ε.
        eps: f32,
        /// Where scale and offset are stored.
        stored: [Stored; 2],
    },
}

/// The tensor in which a vector of parameters is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The tensor's name.
    pub tensor: String,
    /// What is added to the stored values: Gemma stores the scales of its norms less 1.
    pub plus: f32,
}

impl Norm {
    /// Normalises every row.
    pub fn forward(&self, x: View) -> Matrix {
        let mut out = x.to_matrix();
        out.data.par_chunks_mut(x.cols.max(1) * 16).for_each(|rows| {
            rows.chunks_exact_mut(x.cols).for_each(|row| self.apply(row));
        });
        out
    }

    /// Normalises one row in place.
    pub fn apply(&self, row: &mut [f32]) {
        let n = row.len() as f32;
        vectorized(
            #[inline(always)]
            || match self {
                Norm::Rms { weight, eps, .. } => {
                    let scale = 1.0 / (sum(row, |v| v * v) / n + eps).sqrt();
                    for (v, w) in row.iter_mut().zip(weight) {
                        *v *= scale * w;
                    }
                }
                Norm::Layer { weight, bias, eps, .. } => {
                    let mean = sum(row, |v| v) / n;
                    let scale = 1.0 / (sum(row, |v| (v - mean) * (v - mean)) / n + eps).sqrt();
                    row.iter_mut().for_each(|v| *v = (*v - mean) * scale);
                    if let Some(weight) = weight {
                        row.iter_mut().zip(weight).for_each(|(v, w)| *v *= w);
                    }
                    if let Some(bias) = bias {
                        row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                    }
                }
            },
        );
    }

    /// Turns a target for the norm's output into a target for its input, by one damped
    /// Gauss–Newton step from the input `y` that treats the row's own scale as constant:
    ///
    /// ```text
    /// want ← y + g(want − norm(y))/(g² + 0.01·mean(g²)),   g = weight·scale
    /// ```
    pub fn pull_back(&self, y: &[f32], want: &mut [f32]) {
        const DAMPING: f32 = 0.01;
        let mut normed = y.to_vec();
        self.apply(&mut normed);
        let n = y.len().max(1) as f32;
        let (scale, weight) = match self {
            Norm::Rms { weight, eps, .. } => {
                (1.0 / (sum(y, |v| v * v) / n + eps).sqrt(), Some(weight))
            }
            Norm::Layer { weight, eps, .. } => {
                let mean = sum(y, |v| v) / n;
                (1.0 / (sum(y, |v| (v - mean) * (v - mean)) / n + eps).sqrt(), weight.as_ref())
            }
        };
        let gain = |j: usize| scale * weight.map_or(1.0, |w| w[j]);
        let mean = (0..y.len()).map(|j| gain(j) * gain(j)).sum::<f32>() / n;
        for (j, want) in want.iter_mut().enumerate() {
            let g = gain(j);
            let step = g * (*want - normed[j]) / (g * g + DAMPING * mean).max(f32::MIN_POSITIVE);
            *want = y[j] + step;
        }
    }
}

/// Sum of `f` over a row, in 16 lanes.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = row.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|&v| f(v)).sum();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_change_is_pulled_back_to_what_makes_it() {
        let norm =
            Norm::Rms { weight: vec![1.0, -2.0, 0.5, 1e-9], eps: 1e-6, stored: Stored::default() };
        let y = [3.0, -1.0, 2.0, 0.5];
        let mut want = y.to_vec();
        norm.apply(&mut want);
        let normed = want.clone();
        want[1] += 0.02;
        let wanted = want[1];
        norm.pull_back(&y, &mut want);
        assert!(want.iter().all(|v| v.is_finite()) && want[3] == y[3]);
        norm.apply(&mut want);
        assert!((want[1] - wanted).abs() < 0.2 * (normed[1] - wanted).abs());
    }
}

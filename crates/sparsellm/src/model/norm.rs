//! Normalisation layers.

use crate::linalg::{Matrix, View, vectorized};
use rayon::prelude::*;

/// A normalisation over the last dimension.
#[derive(Clone, Debug)]
pub enum Norm {
    /// `x / sqrt(mean(x²) + ε) ⊙ weight` (LLaMA).
    Rms {
        /// Per-feature scale.
        weight: Vec<f32>,
        /// ε.
        eps: f32,
    },
    /// `(x − mean) / sqrt(var + ε) ⊙ weight + bias` (OPT).
    Layer {
        /// Per-feature scale, where there is one.
        weight: Option<Vec<f32>>,
        /// Per-feature offset, where there is one.
        bias: Option<Vec<f32>>,
        /// ε.
        eps: f32,
    },
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
                Norm::Rms { weight, eps } => {
                    let scale = 1.0 / (sum(row, |v| v * v) / n + eps).sqrt();
                    for (v, w) in row.iter_mut().zip(weight) {
                        *v *= scale * w;
                    }
                }
                Norm::Layer { weight, bias, eps } => {
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

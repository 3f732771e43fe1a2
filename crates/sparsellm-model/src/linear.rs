//! A linear layer.

use sparsellm_checkpoint::Slot;
use sparsellm_tensor::{Matrix, View, Weights, tiles};

/// A linear layer `X Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The name inside the block, such as `self_attn.q_proj`.
    pub name: String,
    /// Where its weights are stored.
    pub slot: Slot,
    /// `W: [d_out, d_in]`.
    pub weight: Weights,
    /// `b: [d_out]`, if there is a bias.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Makes a linear of these weights, stored as a tensor of its own.
    pub fn new(name: &str, weight: Matrix, bias: Option<Vec<f32>>) -> Self {
        let slot = Slot::whole(format!("{name}.weight"), weight.rows, weight.cols);
        Linear { name: name.into(), slot, weight: Weights::new(weight), bias }
    }

    /// Returns `X Wᵀ + b` for `X: [tokens, d_in]`.
    pub fn forward(&self, x: View) -> Matrix {
        let mut y = Matrix::zeros(x.rows, self.weight.rows);
        tiles(x.rows, [&mut y.data], |rows, [y]| self.forward_tile(x.rows(rows), y, 0));
        y
    }

    /// Sets `Y[:, at..at + d_out] = X Wᵀ + b` for a tile, on this thread.
    pub fn forward_tile(&self, x: View, y: &mut [f32], at: usize) {
        self.weight.product_tile(x, y, at, false, 1.0);
        self.add_bias(y, y.len() / x.rows.max(1), at);
    }

    /// Adds `X Wᵀ + b` to `Y` for a tile, on this thread.
    pub(crate) fn add_forward_tile(&self, x: View, y: &mut [f32]) {
        self.weight.product_tile(x, y, 0, true, 1.0);
        self.add_bias(y, self.weight.rows, 0);
    }

    fn add_bias(&self, y: &mut [f32], cols: usize, at: usize) {
        let Some(bias) = &self.bias else { return };
        for row in y.chunks_exact_mut(cols) {
            row[at..].iter_mut().zip(bias).for_each(|(v, b)| *v += b);
        }
    }
}

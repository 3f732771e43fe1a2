//! The backward pass of a whole block.

use super::{BlockGradients, halves::Half};
use crate::{Block, Positions, Residual};
use sparsellm_tensor::Matrix;

impl Block {
    /// Runs the backward pass on `hidden: [rows, d]`, the block's input at whole segments: takes
    /// `∂L/∂(output)`, adds the gradients of the parameters to `gradients`, and returns
    /// `∂L/∂(hidden)`.
    pub fn backward(
        &self,
        hidden: &Matrix,
        positions: Positions,
        d: Matrix,
        gradients: &mut BlockGradients,
    ) -> Matrix {
        let attention = Half::attention(self, hidden, positions);
        let middle = attention.output(self, hidden);
        let serial = self.residual == Residual::Serial;
        let network = Half::network(self, if serial { &middle } else { hidden });
        // h₂ = norm(h₁ + network(h₁ or h)), h₁ = norm(h + attention(h))
        let d_sum = network.sum_backward(self, &middle, d, gradients);
        let d_network =
            network.backward(self, if serial { &middle } else { hidden }, &d_sum, gradients);
        let mut d_middle = d_sum;
        if serial {
            add(&mut d_middle, &d_network);
        }
        let d_sum = attention.sum_backward(self, hidden, d_middle, gradients);
        let mut d_hidden = attention.backward(self, hidden, &d_sum, gradients);
        add(&mut d_hidden, &d_sum);
        if !serial {
            add(&mut d_hidden, &d_network);
        }
        d_hidden
    }
}

/// `a += b`.
fn add(a: &mut Matrix, b: &Matrix) {
    a.data.iter_mut().zip(&b.data).for_each(|(a, b)| *a += b);
}

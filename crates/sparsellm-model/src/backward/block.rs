//! The backward pass of a whole block.

use super::{BlockGradients, halves::Half};
use crate::{Block, Part, Positions, Residual};
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

/// What one half of a block works on.
#[derive(Clone, Copy)]
pub struct HalfInput<'a> {
    /// The residual stream that the half's output is added to, `[rows, d]`.
    pub stream: &'a Matrix,
    /// The hidden states that the half reads, `[rows, d]`: the residual stream, except in the
    /// feed-forward network of a parallel block, which reads the block's input.
    pub read: &'a Matrix,
}

impl Block {
    /// Runs one half, and returns the residual stream after it.
    pub fn run_half(&self, part: Part, input: HalfInput, at: Positions) -> Matrix {
        self.half(part, input.read, at).output(self, input.stream)
    }

    /// Runs one half forward, passes the residual stream after it to `loss`, and with the gradient
    /// that it returns runs the backward pass: adds the gradients of the half's parameters to
    /// `gradients`.
    pub fn half_backward(
        &self,
        part: Part,
        input: HalfInput,
        at: Positions,
        loss: impl FnOnce(Matrix) -> Matrix,
        gradients: &mut BlockGradients,
    ) {
        let half = self.half(part, input.read, at);
        let d = loss(half.output(self, input.stream));
        let d_sum = half.sum_backward(self, input.stream, d, gradients);
        half.backward(self, input.read, &d_sum, gradients);
    }

    fn half(&self, part: Part, read: &Matrix, at: Positions) -> Half {
        match part {
            Part::Attention => Half::attention(self, read, at),
            Part::Ffn => Half::network(self, read),
        }
    }
}

/// `a += b`.
fn add(a: &mut Matrix, b: &Matrix) {
    a.data.iter_mut().zip(&b.data).for_each(|(a, b)| *a += b);
}

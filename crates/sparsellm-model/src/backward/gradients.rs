//! The gradient of a loss with respect to a block's parameters.

use crate::{Block, Linear, Norm};
use sparsellm_tensor::{Kept, Matrix, View, gradient_matmul, gradient_matmul_tn};

/// The gradients of a block's parameters: the kept weights and the bias of each linear, the
/// weights and biases of the norms. They add up over calls of
/// [`Block::backward`](crate::Block::backward).
#[derive(Clone, Debug)]
pub struct BlockGradients {
    /// By linear, in the order of [`Block::linears`].
    pub linears: Vec<LinearGradient>,
    /// By norm, in the order of [`Block::norms`]; empty for norms that there are not.
    pub norms: [NormGradient; 8],
}

/// The gradients of a linear's parameters.
#[derive(Clone, Debug)]
pub struct LinearGradient {
    /// Which weights are kept; the others have no gradient.
    pub kept: Kept,
    /// The gradient of each kept weight.
    pub weight: Vec<f32>,
    /// The gradient of the bias, `[d_out]`; empty if there is none.
    pub bias: Vec<f32>,
}

/// The gradients of a norm's parameters.
#[derive(Clone, Debug)]
pub struct NormGradient {
    /// The gradient of the scale; empty if there is none.
    pub weight: Vec<f32>,
    /// The gradient of the offset; empty if there is none.
    pub bias: Vec<f32>,
}

impl BlockGradients {
    /// Zero gradients for a block's kept weights, biases and norms.
    pub fn zeros(block: &Block) -> BlockGradients {
        BlockGradients {
            linears: block.linears().into_iter().map(LinearGradient::zeros).collect(),
            norms: block.norms().map(NormGradient::zeros),
        }
    }

    /// Sets all gradients to zero.
    pub fn clear(&mut self) {
        self.values_mut().for_each(|values| values.fill(0.0));
    }

    /// The gradients by parameter, as [`Block::update`] numbers them.
    pub fn values(&self) -> impl Iterator<Item = &Vec<f32>> {
        let linears = self.linears.iter().flat_map(|linear| [&linear.weight, &linear.bias]);
        linears.chain(self.norms.iter().flat_map(|norm| [&norm.weight, &norm.bias]))
    }

    /// The same, mutably.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        let linears = self.linears.iter_mut().flat_map(|l| [&mut l.weight, &mut l.bias]);
        linears.chain(self.norms.iter_mut().flat_map(|n| [&mut n.weight, &mut n.bias]))
    }
}

impl LinearGradient {
    fn zeros(linear: &Linear) -> LinearGradient {
        let kept = Kept::of(&linear.weight);
        let weight = vec![0.0; kept.len()];
        LinearGradient { kept, weight, bias: vec![0.0; linear.bias.as_ref().map_or(0, Vec::len)] }
    }

    /// For `Y = X Wᵀ + b`, adds `∂L/∂W = (∂L/∂Y)ᵀX` and `∂L/∂b = Σ ∂L/∂Y`, and returns
    /// `∂L/∂X = (∂L/∂Y) W`.
    pub(super) fn backward(&mut self, linear: &Linear, x: View, dy: View) -> Matrix {
        self.kept.add_to(&gradient_matmul_tn(dy, x), &mut self.weight);
        if !self.bias.is_empty() {
            for dy in dy.data.chunks_exact(dy.cols) {
                self.bias.iter_mut().zip(dy).for_each(|(sum, v)| *sum += v);
            }
        }
        gradient_matmul(dy, linear.weight.view())
    }
}

impl NormGradient {
    pub(crate) fn zeros(norm: Option<&Norm>) -> NormGradient {
        let (weight, bias) = match norm {
            None => (0, 0),
            Some(Norm::Rms { weight, .. }) => (weight.len(), 0),
            Some(Norm::Layer { weight, bias, .. }) => {
                (weight.as_ref().map_or(0, Vec::len), bias.as_ref().map_or(0, Vec::len))
            }
        };
        NormGradient { weight: vec![0.0; weight], bias: vec![0.0; bias] }
    }
}

//! The gradient of a loss with respect to a block's parameters.

use crate::{Block, Linear, Norm, Part};
use sparsellm_tensor::{Arithmetic, Kept, Matrix, View};

/// The gradients of a block's parameters: the kept weights and the bias of each linear, the
/// weights and biases of the norms. They add up over calls of
/// [`Block::backward`](crate::Block::backward), in f64, which has room for all bits of the f32 sums
/// over one call's tokens: in whatever order the calls come, the result is the same.
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
    pub weight: Vec<f64>,
    /// The gradient of the bias, `[d_out]`; empty if there is none.
    pub bias: Vec<f64>,
    /// The arithmetic of the products that they are made of.
    pub arithmetic: Arithmetic,
    /// The sum over tokens of `(∂L/∂Y)²` for each output of `Y = X Wᵀ + b`, `[d_out]`, if
    /// [`BlockGradients::of_outputs`] asked for it.
    pub output_squares: Option<Vec<f64>>,
}

/// The gradients of a norm's parameters.
#[derive(Clone, Debug)]
pub struct NormGradient {
    /// The gradient of the scale; empty if there is none.
    pub weight: Vec<f64>,
    /// The gradient of the offset; empty if there is none.
    pub bias: Vec<f64>,
}

impl BlockGradients {
    /// Zero gradients for a block's kept weights, biases and norms, to be computed in this
    /// arithmetic.
    pub fn zeros(block: &Block, arithmetic: Arithmetic) -> BlockGradients {
        let zeros = |linear| LinearGradient::zeros(linear, arithmetic);
        BlockGradients {
            linears: block.linears().into_iter().map(zeros).collect(),
            norms: block.norms().map(NormGradient::zeros),
        }
    }

    /// Gathers no gradients of linears' parameters, but the squares of those of their outputs.
    pub fn of_outputs(block: &Block, arithmetic: Arithmetic) -> BlockGradients {
        let of_output = |linear: &Linear| LinearGradient {
            kept: Kept::of(&linear.weight).none(),
            weight: Vec::new(),
            bias: Vec::new(),
            arithmetic,
            output_squares: Some(vec![0.0; linear.weight.rows]),
        };
        BlockGradients {
            linears: block.linears().into_iter().map(of_output).collect(),
            norms: block.norms().map(NormGradient::zeros),
        }
    }

    /// Leaves out linears that nothing was pruned from and, if `part` is given, those of the other
    /// half of the block: they stay as they are, and have no gradients.
    pub fn only_pruned(&mut self, block: &Block, part: Option<Part>) {
        let wanted = |i| {
            block
                .groups()
                .iter()
                .any(|g| g.linears.contains(&i) && part.is_none_or(|part| part == g.part))
        };
        for (i, linear) in self.linears.iter_mut().enumerate() {
            if linear.kept.is_all() || !wanted(i) {
                linear.leave_out();
            }
        }
    }

    /// Sets all gradients to zero.
    pub fn clear(&mut self) {
        self.values_mut().for_each(|values| values.fill(0.0));
    }

    /// The gradients by parameter, as [`Block::update`] numbers them.
    pub fn values(&self) -> impl Iterator<Item = &Vec<f64>> {
        let linears = self.linears.iter().flat_map(|linear| [&linear.weight, &linear.bias]);
        linears.chain(self.norms.iter().flat_map(|norm| [&norm.weight, &norm.bias]))
    }

    /// The same, mutably.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        let linears = self.linears.iter_mut().flat_map(|l| [&mut l.weight, &mut l.bias]);
        linears.chain(self.norms.iter_mut().flat_map(|n| [&mut n.weight, &mut n.bias]))
    }
}

impl LinearGradient {
    fn zeros(linear: &Linear, arithmetic: Arithmetic) -> LinearGradient {
        let kept = Kept::of(&linear.weight);
        let weight = vec![0.0; kept.len()];
        let bias = vec![0.0; linear.bias.as_ref().map_or(0, Vec::len)];
        LinearGradient { kept, weight, bias, arithmetic, output_squares: None }
    }

    fn leave_out(&mut self) {
        self.kept = self.kept.none();
        (self.weight, self.bias) = (Vec::new(), Vec::new());
    }

    /// For `Y = X Wᵀ + b`, adds `∂L/∂W = (∂L/∂Y)ᵀX` and `∂L/∂b = Σ ∂L/∂Y`, and returns
    /// `∂L/∂X = (∂L/∂Y) W`.
    pub(super) fn backward(&mut self, linear: &Linear, x: View, dy: View) -> Matrix {
        if !self.kept.is_empty() {
            self.kept.add_to(&self.arithmetic.matmul_tn(dy, x), &mut self.weight);
        }
        if !self.bias.is_empty() {
            for dy in dy.data.chunks_exact(dy.cols) {
                self.bias.iter_mut().zip(dy).for_each(|(sum, v)| *sum += f64::from(*v));
            }
        }
        if let Some(squares) = &mut self.output_squares {
            for dy in dy.data.chunks_exact(dy.cols) {
                squares.iter_mut().zip(dy).for_each(|(sum, v)| *sum += f64::from(*v).powi(2));
            }
        }
        self.arithmetic.matmul(dy, linear.weight.view())
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

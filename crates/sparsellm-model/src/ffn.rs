//! The feed-forward network of a block: gated or plain.

use crate::Linear;
use sparsellm_tensor::{Activation, View};

/// The feed-forward network of a block.
#[derive(Clone, Debug)]
pub enum Ffn {
    /// `down(activation(gate(x)) ⊙ up(x))` (LLaMA, Gemma).
    Gated {
        /// `[d_ff, d]`.
        gate: Linear,
        /// `[d_ff, d]`.
        up: Linear,
        /// `[d, d_ff]`.
        down: Linear,
        /// The function on the gate's output.
        activation: Activation,
    },
    /// `fc2(activation(fc1(x)))` (OPT, GPT-NeoX).
    Plain {
        /// `[d_ff, d]`.
        fc1: Linear,
        /// `[d, d_ff]`.
        fc2: Linear,
        /// The function between the linears.
        activation: Activation,
    },
}

impl Ffn {
    /// Computes the input of the last linear, `a: [tokens, d_ff]`, from a tile of the network's
    /// input, `x: [tokens, d]`.
    pub(crate) fn hidden_tile(&self, x: View, a: &mut [f32]) {
        match self {
            Ffn::Plain { fc1, activation, .. } => {
                fc1.forward_tile(x, a, 0);
                activation.apply(a);
            }
            Ffn::Gated { gate, up, activation, .. } => {
                gate.forward_tile(x, a, 0);
                let mut z = vec![0.0; a.len()];
                up.forward_tile(x, &mut z, 0);
                activation.apply_gate(a, &z);
            }
        }
    }

    /// The linears that take the network's input: fc1, or gate and up.
    pub fn first(&self) -> Vec<&Linear> {
        match self {
            Ffn::Plain { fc1, .. } => vec![fc1],
            Ffn::Gated { gate, up, .. } => vec![gate, up],
        }
    }

    /// The linear that gives the network's output: fc2, or down.
    pub fn last(&self) -> &Linear {
        match self {
            Ffn::Plain { fc2, .. } => fc2,
            Ffn::Gated { down, .. } => down,
        }
    }

    /// The function between the linears.
    pub fn activation(&self) -> Activation {
        match self {
            Ffn::Plain { activation, .. } | Ffn::Gated { activation, .. } => *activation,
        }
    }

    /// Every linear, in the order of the forward pass.
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Ffn::Plain { fc1, fc2, .. } => vec![fc1, fc2],
            Ffn::Gated { gate, up, down, .. } => vec![gate, up, down],
        }
    }

    /// Every linear, mutably, in the same order.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Ffn::Plain { fc1, fc2, .. } => vec![fc1, fc2],
            Ffn::Gated { gate, up, down, .. } => vec![gate, up, down],
        }
    }
}

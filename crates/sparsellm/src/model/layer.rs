//! A decoder layer: attention, a feed-forward network, two norms. The families
//! differ only in what they fill in here.

use super::{Attention, Norm};
use crate::linalg::{Matrix, View, gelu, matmul_nt, relu, silu, vectorized};
use rayon::prelude::*;

/// A linear layer `X Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Its name inside the layer, e.g. `self_attn.q_proj`.
    pub name: &'static str,
    /// `W: [d_out, d_in]`.
    pub weight: Matrix,
    /// `b: [d_out]`.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// `X Wᵀ + b` for `X: [tokens, d_in]`.
    pub fn forward(&self, x: View) -> Matrix {
        let mut y = matmul_nt(x, self.weight.view());
        if let Some(bias) = &self.bias {
            y.data.par_chunks_mut(bias.len().max(1)).for_each(|row| {
                row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
            });
        }
        y
    }
}

/// The function between the two linears of a plain feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(0, x)` (OPT).
    Relu,
    /// `x·Φ(x)` (Galactica).
    Gelu,
}

/// The feed-forward network of a decoder layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// `fc2(activation(fc1(x)))` (OPT).
    Mlp {
        /// `[d_ff, d]`.
        fc1: Linear,
        /// `[d, d_ff]`.
        fc2: Linear,
        /// The function between.
        activation: Activation,
    },
    /// `down(silu(gate(x)) ⊙ up(x))` (LLaMA).
    SwiGlu {
        /// `[d_ff, d]`.
        gate: Linear,
        /// `[d_ff, d]`.
        up: Linear,
        /// `[d, d_ff]`.
        down: Linear,
    },
}

impl FeedForward {
    /// The input of the last linear, `[tokens, d_ff]`, for `x: [tokens, d]`.
    pub fn hidden(&self, x: View) -> Matrix {
        match self {
            FeedForward::Mlp { fc1, activation, .. } => {
                let mut z = fc1.forward(x);
                let f = match activation {
                    Activation::Relu => relu,
                    Activation::Gelu => gelu,
                };
                z.data.par_iter_mut().for_each(|v| *v = f(*v));
                z
            }
            FeedForward::SwiGlu { gate, up, .. } => swiglu(gate.forward(x), &up.forward(x)),
        }
    }

    /// The last linear: fc2 or down.
    pub fn last(&self) -> &Linear {
        match self {
            FeedForward::Mlp { fc2, .. } => fc2,
            FeedForward::SwiGlu { down, .. } => down,
        }
    }
}

/// `silu(s) ⊙ z`, in the place of `s`.
pub fn swiglu(mut s: Matrix, z: &Matrix) -> Matrix {
    const PIECE: usize = 1 << 14;
    s.data.par_chunks_mut(PIECE).zip(z.data.par_chunks(PIECE)).for_each(|(s, z)| {
        vectorized(
            #[inline(always)]
            || s.iter_mut().zip(z).for_each(|(s, z)| *s = silu(*s) * z),
        );
    });
    s
}

/// The linears of a decoder layer that share one input (and so one Hessian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// q, k, v.
    AttentionIn,
    /// o.
    AttentionOut,
    /// gate and up, or fc1.
    FfnIn,
    /// down, or fc2.
    FfnOut,
}

impl Group {
    /// All groups, in the order of the forward pass.
    pub const ALL: [Group; 4] =
        [Group::AttentionIn, Group::AttentionOut, Group::FfnIn, Group::FfnOut];
}

/// One decoder layer's weights in f32.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    /// The attention block.
    pub attention: Attention,
    /// The feed-forward network.
    pub ffn: FeedForward,
    /// Norm of the attention block.
    pub attention_norm: Norm,
    /// Norm of the feed-forward network.
    pub ffn_norm: Norm,
    /// Whether a norm comes before its block, inside the residual branch, or
    /// after the residual sum (OPT-350M).
    pub pre_norm: bool,
}

impl DecoderLayer {
    /// The linears of a group.
    pub fn linears(&self, group: Group) -> Vec<&Linear> {
        let a = &self.attention;
        match (group, &self.ffn) {
            (Group::AttentionIn, _) => vec![&a.q, &a.k, &a.v],
            (Group::AttentionOut, _) => vec![&a.o],
            (Group::FfnIn, FeedForward::Mlp { fc1, .. }) => vec![fc1],
            (Group::FfnIn, FeedForward::SwiGlu { gate, up, .. }) => vec![gate, up],
            (Group::FfnOut, ffn) => vec![ffn.last()],
        }
    }

    /// The linears of a group, to be pruned.
    pub fn linears_mut(&mut self, group: Group) -> Vec<&mut Linear> {
        let a = &mut self.attention;
        match (group, &mut self.ffn) {
            (Group::AttentionIn, _) => vec![&mut a.q, &mut a.k, &mut a.v],
            (Group::AttentionOut, _) => vec![&mut a.o],
            (Group::FfnIn, FeedForward::Mlp { fc1, .. }) => vec![fc1],
            (Group::FfnIn, FeedForward::SwiGlu { gate, up, .. }) => vec![gate, up],
            (Group::FfnOut, FeedForward::Mlp { fc2, .. }) => vec![fc2],
            (Group::FfnOut, FeedForward::SwiGlu { down, .. }) => vec![down],
        }
    }

    /// The linear of that name.
    pub fn linear_mut(&mut self, name: &str) -> Option<&mut Linear> {
        let has = |g: &Group| self.linears(*g).iter().any(|l| l.name == name);
        let group = Group::ALL.into_iter().find(has)?;
        self.linears_mut(group).into_iter().find(|l| l.name == name)
    }

    /// Every linear, in the order of the forward pass.
    pub fn all_linears(&self) -> impl Iterator<Item = &Linear> {
        Group::ALL.into_iter().flat_map(|group| self.linears(group))
    }

    /// Runs the layer in place on `hidden: [segments·seq_len, d]`; `capture`
    /// receives each group's input, `[segments·seq_len, d_in]`.
    pub fn forward(
        &self,
        hidden: &mut Matrix,
        seq_len: usize,
        mut capture: impl FnMut(Group, View),
    ) {
        self.attend(hidden, seq_len, &mut capture);
        let x = self.ffn_input(hidden);
        capture(Group::FfnIn, x.view());
        let a = self.ffn.hidden(x.view());
        capture(Group::FfnOut, a.view());
        self.add_residual(hidden, &self.ffn.last().forward(a.view()), &self.ffn_norm);
    }

    /// The first half of [`forward`](Self::forward): attention and its
    /// residual.
    pub fn attend(
        &self,
        hidden: &mut Matrix,
        seq_len: usize,
        mut capture: impl FnMut(Group, View),
    ) {
        let mixed = {
            let normed = self.pre_norm.then(|| self.attention_norm.forward(hidden.view()));
            let x = normed.as_ref().unwrap_or(hidden).view();
            capture(Group::AttentionIn, x);
            self.attention.mix(x, seq_len)
        };
        capture(Group::AttentionOut, mixed.view());
        let out = self.attention.o.forward(mixed.view());
        self.add_residual(hidden, &out, &self.attention_norm);
    }

    /// What the feed-forward network sees of the hidden states after
    /// [`attend`](Self::attend).
    pub fn ffn_input(&self, hidden: &Matrix) -> Matrix {
        if self.pre_norm { self.ffn_norm.forward(hidden.view()) } else { hidden.clone() }
    }

    fn add_residual(&self, hidden: &mut Matrix, branch: &Matrix, norm: &Norm) {
        hidden.data.par_iter_mut().zip(&branch.data).for_each(|(h, b)| *h += b);
        if !self.pre_norm {
            *hidden = norm.forward(hidden.view());
        }
    }
}

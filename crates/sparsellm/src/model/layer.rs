//! A decoder layer: attention, a feed-forward network, two norms. The families
//! differ only in what they fill in here.

use super::{Attention, Norm};
use crate::linalg::{
    Matrix, SparseWeights, View, gelu, relu, silu, tile_matmul_nt, tiles, vectorized,
};

/// A linear layer `X Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Its name inside the layer, e.g. `self_attn.q_proj`.
    pub name: &'static str,
    /// `W: [d_out, d_in]`.
    pub weight: Matrix,
    /// `b: [d_out]`.
    pub bias: Option<Vec<f32>>,
    /// What [`pack`](Self::pack) found worth packing.
    packed: Option<SparseWeights>,
}

impl Linear {
    /// A linear with these weights.
    pub fn new(name: &'static str, weight: Matrix, bias: Option<Vec<f32>>) -> Self {
        Linear { name, weight, bias, packed: None }
    }

    /// Packs weights that are mostly zero for faster products. Whoever changes
    /// the weights calls this, or [`unpack`](Self::unpack), afterwards.
    pub fn pack(&mut self) {
        self.packed = SparseWeights::of(&self.weight);
    }

    /// Goes back to products with the weights as they are.
    pub fn unpack(&mut self) {
        self.packed = None;
    }

    /// `X Wᵀ + b` for `X: [tokens, d_in]`.
    pub fn forward(&self, x: View) -> Matrix {
        let mut y = Matrix::zeros(x.rows, self.weight.rows);
        tiles(x.rows, [&mut y.data], |rows, [y]| self.forward_tile(x.rows(rows), y, 0));
        y
    }

    /// `Y[:, at..at + d_out] = X Wᵀ + b` for a tile, on this thread.
    pub fn forward_tile(&self, x: View, y: &mut [f32], at: usize) {
        self.product_tile(x, y, at, false, 1.0);
        self.add_bias(y, y.len() / x.rows.max(1), at);
    }

    /// `Y = Y + X Wᵀ + b` for a tile, on this thread.
    fn add_forward_tile(&self, x: View, y: &mut [f32]) {
        self.product_tile(x, y, 0, true, 1.0);
        self.add_bias(y, self.weight.rows, 0);
    }

    /// `Y[:, at..at + d_out] = [Y +] α X Wᵀ` for a tile, on this thread.
    pub fn product_tile(&self, x: View, y: &mut [f32], at: usize, add: bool, alpha: f32) {
        match &self.packed {
            Some(weights) => weights.tile_matmul_nt(y, at, add, alpha, x),
            None => tile_matmul_nt(y, at, add, alpha, x, self.weight.view()),
        }
    }

    fn add_bias(&self, y: &mut [f32], cols: usize, at: usize) {
        let Some(bias) = &self.bias else { return };
        for row in y.chunks_exact_mut(cols) {
            row[at..].iter_mut().zip(bias).for_each(|(v, b)| *v += b);
        }
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
    /// The input of the last linear, `a: [tokens, d_ff]`, for a tile's
    /// `x: [tokens, d]`.
    fn hidden_tile(&self, x: View, a: &mut [f32]) {
        match self {
            FeedForward::Mlp { fc1, activation, .. } => {
                fc1.forward_tile(x, a, 0);
                match activation {
                    Activation::Relu => a.iter_mut().for_each(|v| *v = relu(*v)),
                    Activation::Gelu => a.iter_mut().for_each(|v| *v = gelu(*v)),
                }
            }
            FeedForward::SwiGlu { gate, up, .. } => {
                gate.forward_tile(x, a, 0);
                let mut z = vec![0.0; a.len()];
                up.forward_tile(x, &mut z, 0);
                swiglu(a, &z);
            }
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
fn swiglu(s: &mut [f32], z: &[f32]) {
    vectorized(
        #[inline(always)]
        || s.iter_mut().zip(z).for_each(|(s, z)| *s = silu(*s) * z),
    );
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

    /// Packs every linear whose weights are mostly zero.
    pub fn pack(&mut self) {
        for group in Group::ALL {
            self.linears_mut(group).into_iter().for_each(Linear::pack);
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
        let mixed = self.mix(hidden, seq_len, &mut capture);
        let (last, d, d_ff) = (self.ffn.last(), hidden.cols, self.ffn.last().weight.cols);
        let mut x = Matrix::zeros(hidden.rows, d);
        let mut a = Matrix::zeros(hidden.rows, d_ff);
        let buffers = [&mut hidden.data[..], &mut x.data, &mut a.data];
        tiles(mixed.rows, buffers, |rows, [hidden, x, a]| {
            self.add_branch(hidden, mixed.rows(rows), &self.attention.o, &self.attention_norm);
            x.copy_from_slice(hidden);
            if self.pre_norm {
                x.chunks_exact_mut(d).for_each(|row| self.ffn_norm.apply(row));
            }
            self.ffn.hidden_tile(View::new(x, d), a);
            self.add_branch(hidden, View::new(a, d_ff), last, &self.ffn_norm);
        });
        capture(Group::FfnIn, x.view());
        capture(Group::FfnOut, a.view());
    }

    /// The first half of [`forward`](Self::forward): attention and its
    /// residual.
    pub fn attend(
        &self,
        hidden: &mut Matrix,
        seq_len: usize,
        mut capture: impl FnMut(Group, View),
    ) {
        let mixed = self.mix(hidden, seq_len, &mut capture);
        tiles(mixed.rows, [&mut hidden.data], |rows, [hidden]| {
            self.add_branch(hidden, mixed.rows(rows), &self.attention.o, &self.attention_norm);
        });
    }

    /// Attention up to the input of its last linear.
    fn mix(&self, hidden: &Matrix, seq_len: usize, mut capture: impl FnMut(Group, View)) -> Matrix {
        let normed = self.pre_norm.then(|| self.attention_norm.forward(hidden.view()));
        let x = normed.as_ref().unwrap_or(hidden).view();
        capture(Group::AttentionIn, x);
        let mixed = self.attention.mix(x, seq_len);
        capture(Group::AttentionOut, mixed.view());
        mixed
    }

    /// What the feed-forward network sees of the hidden states after
    /// [`attend`](Self::attend).
    pub fn ffn_input(&self, hidden: &Matrix) -> Matrix {
        if self.pre_norm { self.ffn_norm.forward(hidden.view()) } else { hidden.clone() }
    }

    /// Adds a branch that ends in `last` to a tile's hidden states.
    fn add_branch(&self, hidden: &mut [f32], input: View, last: &Linear, norm: &Norm) {
        last.add_forward_tile(input, hidden);
        if !self.pre_norm {
            hidden.chunks_exact_mut(last.weight.rows).for_each(|row| norm.apply(row));
        }
    }
}

//! A decoder layer as data: attention, a feed-forward network, the norms around
//! them, and how both join the residual stream. Families differ only in what they
//! fill in here; one forward pass serves all.

use crate::{Attention, Ffn, KeyValueCache, Linear, Norm, Positions, for_each_chunk};
use sparsellm_tensor::profile::{Phase, phase};
use sparsellm_tensor::{Matrix, View, tiles};

/// How the two halves of a block join the residual stream h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `h ← h + attention(h)`, then `h ← h + ffn(h)`.
    Serial,
    /// `h ← h + attention(h) + ffn(h)`, both of the same h.
    Parallel,
}

/// The norms of one half of a block; each is optional.
#[derive(Clone, Debug, Default)]
pub struct HalfNorms {
    /// The norm of the half's input (LLaMA).
    pub input: Option<Norm>,
    /// The norm of the half's output, before it is added to h (Gemma 2).
    pub output: Option<Norm>,
    /// The norm of the sum of h and the half's output (OPT-350M).
    pub sum: Option<Norm>,
}

impl HalfNorms {
    /// A norm of the half's input, and no other.
    pub fn before(norm: Norm) -> Self {
        HalfNorms { input: Some(norm), ..HalfNorms::default() }
    }
}

/// The half of a block that a linear belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Attention.
    Attention,
    /// The feed-forward network.
    Ffn,
}

/// Linears of a block that share one input, and therefore one Hessian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The half that they belong to.
    pub part: Part,
    /// Their indices in [`Block::linears`].
    pub linears: Vec<usize>,
}

/// One decoder layer, its weights in f32.
#[derive(Clone, Debug)]
pub struct Block {
    /// The attention half.
    pub attention: Attention,
    /// The feed-forward half.
    pub ffn: Ffn,
    /// The norms of the attention half.
    pub attention_norms: HalfNorms,
    /// The norms of the feed-forward half.
    pub ffn_norms: HalfNorms,
    /// How the halves join the residual stream.
    pub residual: Residual,
}

impl Block {
    /// Every linear, in the order of the forward pass.
    pub fn linears(&self) -> Vec<&Linear> {
        let a = &self.attention;
        let mut all = vec![&a.q, &a.k, &a.v, &a.o];
        all.extend(self.ffn.linears());
        all
    }

    /// Every linear, mutably, in the same order.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let a = &mut self.attention;
        let mut all = vec![&mut a.q, &mut a.k, &mut a.v, &mut a.o];
        all.extend(self.ffn.linears_mut());
        all
    }

    /// The groups of linears that share an input, in the order in which
    /// [`forward`](Self::forward) captures their inputs.
    pub fn groups(&self) -> Vec<Group> {
        let attention = self.linears().len() - self.ffn.linears().len();
        let (out, first) = (attention - 1, self.ffn.first().len());
        let last = attention + first;
        let group =
            |part, linears: std::ops::Range<usize>| Group { part, linears: linears.collect() };
        vec![
            group(Part::Attention, 0..out),
            group(Part::Attention, out..attention),
            group(Part::Ffn, attention..last),
            group(Part::Ffn, last..last + 1),
        ]
    }

    /// Width of a group's input.
    pub fn input_width(&self, group: &Group) -> usize {
        let linears = self.linears();
        group.linears.first().and_then(|i| linears.get(*i)).map_or(0, |l| l.weight.cols)
    }

    /// Runs the block in place on `hidden: [rows, d]`. `capture` receives the index of each of
    /// the [groups](Self::groups) with the group's input, `[rows, d_in]`. With a `cache`, the
    /// rows are the next tokens of its text.
    pub fn forward(
        &self,
        hidden: &mut Matrix,
        positions: Positions,
        cache: Option<&mut KeyValueCache>,
        mut capture: impl FnMut(usize, View),
    ) {
        let mixed = self.mix(hidden, positions, cache, &mut capture);
        let (last, d, d_ff) = (self.ffn.last(), hidden.cols, self.ffn.last().weight.cols);
        let mut x = Matrix::zeros(hidden.rows, d);
        let mut a = Matrix::zeros(hidden.rows, d_ff);
        let buffers = [&mut hidden.data[..], &mut x.data, &mut a.data];
        let attention = (&self.attention.o, &self.attention_norms);
        tiles(mixed.rows, buffers, |rows, [hidden, x, a]| {
            if self.residual == Residual::Parallel {
                x.copy_from_slice(hidden);
            }
            add_half(hidden, mixed.rows(rows), attention);
            if self.residual == Residual::Serial {
                x.copy_from_slice(hidden);
            }
            if let Some(norm) = &self.ffn_norms.input {
                x.chunks_exact_mut(d).for_each(|row| norm.apply(row));
            }
            self.ffn.hidden_tile(View::new(x, d), a);
            add_half(hidden, View::new(a, d_ff), (last, &self.ffn_norms));
        });
        capture(2, x.view());
        capture(3, a.view());
    }

    /// Runs the block in place on `hidden: [segments·seq_len, d]`, chunk by chunk.
    pub fn run(&self, hidden: &mut Matrix, seq_len: usize) {
        let positions = Positions::segments(seq_len);
        phase(Phase::Forward, || {
            for_each_chunk(hidden, seq_len, |h| self.forward(h, positions, None, |_, _| {}));
        });
    }

    /// Runs only the attention half in place, on whole segments: `h ← h + attention(h)`.
    pub fn attend(
        &self,
        hidden: &mut Matrix,
        seq_len: usize,
        mut capture: impl FnMut(usize, View),
    ) {
        let mixed = self.mix(hidden, Positions::segments(seq_len), None, &mut capture);
        let attention = (&self.attention.o, &self.attention_norms);
        tiles(mixed.rows, [&mut hidden.data], |rows, [hidden]| {
            add_half(hidden, mixed.rows(rows), attention);
        });
    }

    /// Runs the attention half up to the input of its last linear, and returns that.
    fn mix(
        &self,
        hidden: &Matrix,
        positions: Positions,
        cache: Option<&mut KeyValueCache>,
        mut capture: impl FnMut(usize, View),
    ) -> Matrix {
        let normed = self.attention_norms.input.as_ref().map(|norm| norm.forward(hidden.view()));
        let x = normed.as_ref().unwrap_or(hidden).view();
        capture(0, x);
        let mixed = self.attention.mix(x, positions, cache);
        capture(1, mixed.view());
        mixed
    }

    /// The input of the feed-forward network, normalised, given the hidden states `before` the
    /// block and `after` its [attention](Self::attend).
    pub fn ffn_input(&self, before: &Matrix, after: &Matrix) -> Matrix {
        let seen = match self.residual {
            Residual::Serial => after,
            Residual::Parallel => before,
        };
        match &self.ffn_norms.input {
            Some(norm) => norm.forward(seen.view()),
            None => seen.clone(),
        }
    }
}

/// Adds a half's output to a tile's hidden states: `input` through the half's last
/// linear, with its norms.
fn add_half(hidden: &mut [f32], input: View, (last, norms): (&Linear, &HalfNorms)) {
    let d = last.weight.rows;
    match &norms.output {
        None => last.add_forward_tile(input, hidden),
        Some(norm) => {
            let mut out = vec![0.0; hidden.len()];
            last.forward_tile(input, &mut out, 0);
            out.chunks_exact_mut(d).for_each(|row| norm.apply(row));
            hidden.iter_mut().zip(out).for_each(|(h, o)| *h += o);
        }
    }
    if let Some(norm) = &norms.sum {
        hidden.chunks_exact_mut(d).for_each(|row| norm.apply(row));
    }
}

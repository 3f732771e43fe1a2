//! The two halves of a block, with what their backward passes need of the forward pass.

use super::BlockGradients;
use crate::{
    Block, HalfNorms, Norm, Part, Positions,
    attention::{Places, Projected},
};
use rayon::prelude::*;
use sparsellm_tensor::{Activation, Matrix, Scalar, View, vectorized, with_activation};

/// The places of a half's norms in [`Block::norms`].
struct NormPlaces {
    input: usize,
    output: usize,
    sum: usize,
}

const Q_NORM: usize = 1;
const K_NORM: usize = 2;

/// A half that was run on its input h: `norm(h + norm(last(inner(norm(h)))))`, where only some
/// of the norms are there.
pub(super) struct Half {
    part: Part,
    /// The normalised input.
    x: Matrix,
    inner: Inner,
    /// The last linear's input.
    mixed: Matrix,
    /// The last linear's output.
    out: Matrix,
}

/// What lies between a half's normalised input and its last linear.
enum Inner {
    Attention(Box<Mixing>),
    /// The outputs of the first linears: fc1's, or gate's and up's.
    Network(Vec<Matrix>),
}

/// What attention mixes.
struct Mixing {
    /// Queries and keys before their norms, if they have any.
    raw: [Option<Matrix>; 2],
    projected: Projected,
    places: Places,
    seq_len: usize,
}

impl Half {
    /// Runs the attention half on `h`.
    pub fn attention(block: &Block, h: &Matrix, at: Positions) -> Half {
        let a = &block.attention;
        let x = normed(&block.attention_norms.input, h);
        let raw = [(&a.q, &a.q_norm), (&a.k, &a.k_norm)]
            .map(|(linear, norm)| norm.as_ref().map(|_| linear.forward(x.view())));
        let (projected, places) = (a.project(x.view(), at), a.places(at));
        let mixed = a.attend(&projected, at.seq_len);
        let out = a.o.forward(mixed.view());
        let mixing = Mixing { raw, projected, places, seq_len: at.seq_len };
        let inner = Inner::Attention(Box::new(mixing));
        Half { part: Part::Attention, x, inner, mixed, out }
    }

    /// Runs the feed-forward half on `h`.
    pub fn network(block: &Block, h: &Matrix) -> Half {
        let x = normed(&block.ffn_norms.input, h);
        let first: Vec<Matrix> =
            block.ffn.first().into_iter().map(|linear| linear.forward(x.view())).collect();
        let mut mixed = first[0].clone();
        let activation = block.ffn.activation();
        match first.get(1) {
            None => activation.apply(&mut mixed.data),
            Some(z) => activation.apply_gate(&mut mixed.data, &z.data),
        }
        let out = block.ffn.last().forward(mixed.view());
        Half { part: Part::Ffn, x, inner: Inner::Network(first), mixed, out }
    }

    fn norms<'b>(&self, block: &'b Block) -> (&'b HalfNorms, NormPlaces) {
        match self.part {
            Part::Attention => (&block.attention_norms, NormPlaces { input: 0, output: 3, sum: 4 }),
            Part::Ffn => (&block.ffn_norms, NormPlaces { input: 5, output: 6, sum: 7 }),
        }
    }

    /// The sum of the residual stream `h` and the half's output, before its norm.
    fn sum(&self, block: &Block, h: &Matrix) -> Matrix {
        let mut sum = normed(&self.norms(block).0.output, &self.out);
        sum.data.iter_mut().zip(&h.data).for_each(|(s, h)| *s += h);
        sum
    }

    /// The residual stream after the half, where it was `h` before.
    pub fn output(&self, block: &Block, h: &Matrix) -> Matrix {
        normed(&self.norms(block).0.sum, &self.sum(block, h))
    }

    /// Takes the gradient with respect to [`output`](Self::output) back to the sum's.
    pub fn sum_backward(
        &self,
        block: &Block,
        h: &Matrix,
        d: Matrix,
        gradients: &mut BlockGradients,
    ) -> Matrix {
        let (norms, places) = self.norms(block);
        match &norms.sum {
            None => d,
            Some(norm) => {
                let sum = self.sum(block, h);
                gradients.norms[places.sum].backward(norm, sum.view(), d.view())
            }
        }
    }

    /// Takes the gradient with respect to the sum, in which the half's output is a term, back to
    /// the half's input `h`.
    pub fn backward(
        &self,
        block: &Block,
        h: &Matrix,
        d: &Matrix,
        gradients: &mut BlockGradients,
    ) -> Matrix {
        let (norms, places) = self.norms(block);
        let d_out = norms
            .output
            .as_ref()
            .map(|norm| gradients.norms[places.output].backward(norm, self.out.view(), d.view()));
        let d_out = d_out.as_ref().unwrap_or(d);
        let dx = match &self.inner {
            Inner::Attention(mixing) => self.attention_backward(block, mixing, d_out, gradients),
            Inner::Network(first) => self.network_backward(block, first, d_out, gradients),
        };
        match &norms.input {
            None => dx,
            Some(norm) => gradients.norms[places.input].backward(norm, h.view(), dx.view()),
        }
    }

    fn network_backward(
        &self,
        block: &Block,
        first: &[Matrix],
        d_out: &Matrix,
        gradients: &mut BlockGradients,
    ) -> Matrix {
        let ffn = &block.ffn;
        let at = block.linears().len() - ffn.linears().len();
        let last = at + first.len();
        let mut da = gradients.linears[last].backward(ffn.last(), self.mixed.view(), d_out.view());
        let (s, z) = (&first[0], first.get(1));
        let dz = z.map(|z| gate_backward(ffn.activation(), s, z, &mut da));
        if z.is_none() {
            plain_backward(ffn.activation(), s, &mut da);
        }
        let mut dx: Option<Matrix> = None;
        let d_first = std::iter::once(&da).chain(&dz);
        for (i, (linear, d)) in ffn.first().into_iter().zip(d_first).enumerate() {
            let part = gradients.linears[at + i].backward(linear, self.x.view(), d.view());
            dx = Some(sum_of(dx, part));
        }
        dx.unwrap_or_else(|| Matrix::zeros(self.x.rows, self.x.cols))
    }

    fn attention_backward(
        &self,
        block: &Block,
        mixing: &Mixing,
        d_out: &Matrix,
        gradients: &mut BlockGradients,
    ) -> Matrix {
        let Mixing { raw, projected, places, seq_len } = mixing;
        let a = &block.attention;
        let d_mixed = gradients.linears[3].backward(&a.o, self.mixed.view(), d_out.view());
        let [mut dq, mut dk, dv] = a.mix_backward(projected, &self.mixed, &d_mixed, *seq_len);
        for (d, raw, norm, place) in
            [(&mut dq, &raw[0], &a.q_norm, Q_NORM), (&mut dk, &raw[1], &a.k_norm, K_NORM)]
        {
            let cols = d.cols;
            places.rotate_back(&mut d.data, cols);
            if let (Some(norm), Some(raw)) = (norm, raw) {
                let (x, dy) = (View::new(&raw.data, a.head_dim), View::new(&d.data, a.head_dim));
                d.data = gradients.norms[place].backward(norm, x, dy).data;
            }
        }
        let mut dx: Option<Matrix> = None;
        for (i, (linear, d)) in [(&a.q, &dq), (&a.k, &dk), (&a.v, &dv)].into_iter().enumerate() {
            let part = gradients.linears[i].backward(linear, self.x.view(), d.view());
            dx = Some(sum_of(dx, part));
        }
        dx.unwrap_or_else(|| Matrix::zeros(self.x.rows, self.x.cols))
    }
}

/// `sum + part`.
fn sum_of(sum: Option<Matrix>, part: Matrix) -> Matrix {
    match sum {
        None => part,
        Some(mut sum) => {
            sum.data.iter_mut().zip(part.data).for_each(|(a, b)| *a += b);
            sum
        }
    }
}

fn normed(norm: &Option<Norm>, x: &Matrix) -> Matrix {
    match norm {
        Some(norm) => norm.forward(x.view()),
        None => x.clone(),
    }
}

/// For `a = f(s)`: `da ← ∂L/∂s = da ⊙ f'(s)`.
fn plain_backward(activation: Activation, s: &Matrix, da: &mut Matrix) {
    let cols = s.cols.max(1) * 16;
    with_activation!(activation, |f| {
        da.data.par_chunks_mut(cols).zip(s.data.par_chunks(cols)).for_each(|(da, s)| {
            vectorized(
                #[inline(always)]
                || da.iter_mut().zip(s).for_each(|(d, s)| *d *= f.value_and_slope(*s).1),
            );
        });
    });
}

/// For `a = f(s) ⊙ z`: `da ← ∂L/∂s = da ⊙ z ⊙ f'(s)`, and returns `∂L/∂z = da ⊙ f(s)`.
fn gate_backward(activation: Activation, s: &Matrix, z: &Matrix, da: &mut Matrix) -> Matrix {
    let mut dz = Matrix::zeros(z.rows, z.cols);
    let cols = s.cols.max(1) * 16;
    with_activation!(activation, |f| {
        let rows = da.data.par_chunks_mut(cols).zip(dz.data.par_chunks_mut(cols));
        rows.zip(s.data.par_chunks(cols).zip(z.data.par_chunks(cols))).for_each(
            |((da, dz), (s, z))| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (((da, dz), s), z) in da.iter_mut().zip(dz).zip(s).zip(z) {
                            let (value, slope) = f.value_and_slope(*s);
                            *dz = *da * value;
                            *da *= z * slope;
                        }
                    },
                );
            },
        );
    });
    dz
}

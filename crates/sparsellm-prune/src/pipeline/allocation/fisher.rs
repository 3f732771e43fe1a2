//! How much the outputs of each linear matter to the model's loss: the diagonal of the Fisher
//! information of the outputs, as K-FAC has it (Martens & Grosse, *Optimizing Neural Networks with
//! Kronecker-factored Approximate Curvature*, ICML 2015).

use super::super::plan::Plan;
use crate::{
    rows::Rows,
    tune::{Head, cap_backward, log_sum_exp, tiles},
};
use rand_mt::Mt64;
use rayon::prelude::*;
use sparsellm_base::{Event, Observer, Result};
use sparsellm_model::{BlockGradients, Positions, segments_per_chunk};
use sparsellm_tensor::{Arithmetic, Matrix};
use std::ops::Range;

/// `E g²` for each output of a layer's linears, by linear, where g is the gradient of
/// `−ln p(y)` with respect to the output and y is drawn from the model's own p.
pub type Importance = Vec<Vec<f64>>;

/// The importance of the outputs of the layers in `range`, on a text that the dense model was run
/// on: `inputs` are the hidden states before each layer from `range.start` on, and `last` those
/// after the last layer, `[tokens, d]`.
///
/// # Errors
/// If weights or inputs cannot be read, or the observer returns an error.
pub fn importance(
    plan: &Plan,
    (inputs, last): (&mut [Rows], &Matrix),
    seq_len: usize,
    range: &Range<usize>,
    observe: &mut Observer,
) -> Result<Vec<Importance>> {
    let (model, arithmetic) = (plan.model, Arithmetic::default());
    let piece = segments_per_chunk(seq_len) * seq_len;
    let pieces: Vec<Range<usize>> =
        (0..last.rows).step_by(piece).map(|at| at..(at + piece).min(last.rows)).collect();
    let mut ds = head_gradients(plan, last, &pieces)?;
    let mut all = Vec::new();
    let of = 2 * model.shape().layers - range.start;
    for (done, (offset, inputs)) in inputs.iter_mut().enumerate().rev().enumerate() {
        let block = model.block(range.start + offset)?;
        let mut gradients = BlockGradients::of_outputs(&block, arithmetic);
        for (rows, d) in pieces.iter().zip(&mut ds) {
            let hidden = Matrix::new(rows.len(), last.cols, inputs.read(rows.clone())?.to_vec());
            let after = std::mem::replace(d, Matrix::zeros(0, last.cols));
            *d = block.backward(&hidden, Positions::segments(seq_len), after, &mut gradients);
        }
        let mean = |squares: Option<Vec<f64>>| {
            squares.unwrap_or_default().into_iter().map(|g| g / last.rows as f64).collect()
        };
        if range.contains(&(range.start + offset)) {
            all.push(gradients.linears.into_iter().map(|l| mean(l.output_squares)).collect());
        }
        let done = model.shape().layers + done + 1;
        observe.notify(Event::Measured { what: "importance", done, of })?;
    }
    all.reverse();
    Ok(all)
}

/// The gradient of `−ln p(y)` with respect to the last hidden states, piece by piece.
fn head_gradients(plan: &Plan, last: &Matrix, pieces: &[Range<usize>]) -> Result<Vec<Matrix>> {
    let model = plan.model;
    let head = Head::new(model, Arithmetic::default())?;
    let mut random = Mt64::new(0);
    let mut all = Vec::new();
    for rows in pieces {
        let hidden = last.rows(rows.clone()).to_matrix();
        let input = model.finish(hidden.clone())?;
        let mut gradient = Matrix::zeros(input.rows, input.cols);
        for tile in tiles(input.rows) {
            let first = tile.start;
            let draws: Vec<f64> =
                tile.clone().map(|_| random.next_u64() as f64 / 2f64.powi(64)).collect();
            let mut logits = head.logits(input.rows(tile));
            let cols = logits.cols.max(1);
            let tokens = logits.data.par_chunks_mut(cols).zip(draws);
            tokens.for_each(|(logits, draw)| label_gradient(logits, draw, head.softcap));
            gradient.set_rows(first, &head.input_gradient(logits.view()));
        }
        all.push(model.finish_backward(&hidden, gradient)?);
    }
    Ok(all)
}

/// Turns a token's logits into the gradient `p − e_y` of `−ln p(y)` with respect to them, for the y
/// that a `draw` from [0, 1) picks from p.
fn label_gradient(logits: &mut [f32], draw: f64, softcap: Option<f32>) {
    let capped = softcap.map(|cap| (cap, logits.to_vec()));
    let normalizer = log_sum_exp(logits);
    let (mut sum, mut label) = (0.0, None);
    for (y, p) in logits.iter_mut().enumerate() {
        *p = (*p - normalizer).exp();
        sum += f64::from(*p);
        if label.is_none() && draw < sum {
            label = Some(y);
        }
    }
    // Rounding may leave the sum just below 1.
    if let Some(p) = logits.get_mut(label.unwrap_or(logits.len().saturating_sub(1))) {
        *p -= 1.0;
    }
    if let Some((cap, capped)) = capped {
        cap_backward(logits, &capped, cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_drawn_from_the_probabilities() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        for (draw, label) in [(0.0, 0), (0.49, 0), (0.51, 1), (0.79, 1), (0.81, 2), (0.9999, 2)] {
            let mut d = logits.clone();
            label_gradient(&mut d, draw, None);
            for (y, (d, p)) in d.iter().zip([0.5, 0.3, 0.2]).enumerate() {
                let want = if y == label { p - 1.0 } else { p };
                assert!((d - want).abs() < 1e-6, "{draw}: {y} {d}");
            }
        }
    }
}

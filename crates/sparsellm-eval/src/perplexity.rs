//! Measures perplexity by the protocol of SparseLLM's authors: the text is cut into windows of one
//! length, and the perplexity is `exp` of the mean, over the windows, of a window's mean next-token
//! loss.

use crate::{batch::HIDDEN_VALUES, head};
use sparsellm_base::{Event, Observer, Result, input_error, numerics_error};
use sparsellm_model::Model;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use sparsellm_text::Segments;

/// A measured perplexity, and the amount of text that it was measured on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// `exp` of the mean next-token loss in nats.
    pub perplexity: f64,
    /// The number of tokens in all windows together.
    pub tokens: usize,
    /// The number of windows.
    pub windows: usize,
}

/// Measures a model's perplexity on `windows`: `exp` of the mean, over the windows, of a window's
/// mean next-token loss. No token is predicted from another window.
///
/// Each rank measures its share of the windows, and all ranks get the same result. After every
/// decoder layer, `observe` receives an [`Event::Measured`] with this `what`.
///
/// # Errors
/// If there are no windows, they do not fit the model, weights cannot be read, or the model's
/// output is not finite; and the observer's own error, which ends the measurement.
pub fn perplexity(
    model: &Model,
    windows: &Segments,
    what: &str,
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<Perplexity> {
    let (shape, seq_len, count) = (model.shape(), windows.seq_len, windows.count());
    model.check_seq_len(seq_len)?;
    if count == 0 {
        return input_error!("{what}: there is no window to measure the perplexity on");
    }
    let per_batch = (HIDDEN_VALUES / (seq_len * shape.hidden)).max(1) * seq_len;
    let mine = &windows.tokens[ranks.share_in_pieces(windows.tokens.len(), seq_len)];
    let of = mine.len().div_ceil(per_batch) * shape.layers;
    let mut sum = 0.0;
    for (batch, tokens) in mine.chunks(per_batch).enumerate() {
        let mut hidden = model.embed(tokens, seq_len)?;
        for index in 0..shape.layers {
            model.block(index)?.run(&mut hidden, seq_len);
            observe.notify(Event::Measured { what, done: batch * shape.layers + index + 1, of })?;
        }
        let hidden = model.finish(hidden)?;
        sum += window_losses(model, &hidden, tokens, seq_len)?.iter().sum::<f64>();
    }
    let perplexity = (ranks.sum_number(sum) / count as f64).exp();
    if !perplexity.is_finite() {
        return numerics_error!(
            "{}: the model's output is not finite on this text",
            model.checkpoint.path.display()
        );
    }
    Ok(Perplexity { perplexity, tokens: windows.tokens.len(), windows: count })
}

/// The mean next-token loss of each window. The last token of a window predicts nothing, because
/// its successor is not in the window.
fn window_losses(
    model: &Model,
    hidden: &Matrix,
    tokens: &[u32],
    seq_len: usize,
) -> Result<Vec<f64>> {
    let next = |t: usize| (!(t + 1).is_multiple_of(seq_len)).then(|| tokens[t + 1]);
    let targets: Vec<Option<u32>> = (0..tokens.len()).map(next).collect();
    let scored = head::score(model, hidden, &targets)?;
    let loss = |window: &[Option<head::Scored>]| {
        let losses = window.iter().flatten().map(|s| -s.log_probability);
        losses.sum::<f64>() / (seq_len - 1) as f64
    };
    Ok(scored.chunks_exact(seq_len).map(loss).collect())
}

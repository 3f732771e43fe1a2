//! Perplexity by the authors' protocol: windows of one length, and `exp` of the
//! mean over windows of the window's mean next-token loss.

use super::{BATCH, head};
use crate::error::{Result, invalid};
use crate::linalg::Matrix;
use crate::model::Model;
use crate::pipeline::run;
use crate::ranks::Communicator;
use crate::text::Segments;

/// A measured perplexity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// `exp` of the mean loss, in nats.
    pub perplexity: f64,
    /// Tokens read.
    pub tokens: usize,
    /// Windows read.
    pub windows: usize,
}

/// Measures a model on `windows`, each rank on its part of them; `progress` is
/// told the decoder layers done and to do, and an error that it answers ends the measurement.
///
/// # Errors
/// Where weights cannot be read, or the model's output is not finite.
pub fn perplexity(
    model: &Model,
    windows: &Segments,
    ranks: &dyn Communicator,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Perplexity> {
    let (shape, seq_len) = (model.shape(), windows.seq_len);
    let per_batch = (BATCH / (seq_len * shape.hidden)).max(1) * seq_len;
    let mine = windows.share(ranks, 1);
    let batches = mine.len().div_ceil(per_batch);
    let mut sum = 0.0;
    for (b, tokens) in mine.chunks(per_batch).enumerate() {
        let mut hidden = model.embed(tokens, seq_len)?;
        for index in 0..shape.layers {
            let layer = model.layer(index)?;
            run(&layer, &mut hidden, seq_len);
            progress(b * shape.layers + index + 1, batches * shape.layers)?;
        }
        let hidden = model.family.finish(&model.checkpoint, hidden)?;
        sum += window_losses(model, &hidden, tokens, seq_len)?.iter().sum::<f64>();
    }
    let count = windows.count();
    let perplexity = (ranks.total(sum) / count as f64).exp();
    if !perplexity.is_finite() {
        return invalid!(
            "{}: the model's output is not finite on this text",
            model.checkpoint.path.display()
        );
    }
    Ok(Perplexity { perplexity, tokens: windows.tokens.len(), windows: count })
}

/// The mean next-token loss of each window. A window's last token has no
/// successor in it.
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

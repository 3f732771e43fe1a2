//! Perplexity by the authors' protocol: windows of one length, and `exp` of the
//! mean over windows of the window's mean next-token loss.

use crate::error::{Result, invalid};
use crate::linalg::{Matrix, exp_sum, matmul_nt};
use crate::model::Model;
use crate::pipeline::for_each_chunk;
use crate::text::Segments;
use rayon::prelude::*;

/// Hidden states kept at once, in f32 values: each decoder layer is loaded once
/// per that many.
const BATCH: usize = 1 << 26;
/// Rows of the head loaded at once.
const HEAD_ROWS: usize = 4096;

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

/// Measures a model on `windows`; `progress` is told the decoder layers done
/// and to do.
///
/// # Errors
/// Where weights cannot be read, or the model's output is not finite.
pub fn perplexity(
    model: &Model,
    windows: &Segments,
    mut progress: impl FnMut(usize, usize),
) -> Result<Perplexity> {
    let (shape, seq_len) = (model.shape(), windows.seq_len);
    let per_batch = (BATCH / (seq_len * shape.hidden)).max(1) * seq_len;
    let batches = windows.tokens.len().div_ceil(per_batch);
    let mut sum = 0.0;
    for (b, tokens) in windows.tokens.chunks(per_batch).enumerate() {
        let mut hidden = model.embed(tokens, seq_len)?;
        for index in 0..shape.layers {
            let layer = model.layer(index)?;
            for_each_chunk(&mut hidden, seq_len, |chunk| layer.forward(chunk, seq_len, |_, _| {}));
            progress(b * shape.layers + index + 1, batches * shape.layers);
        }
        let hidden = model.family.finish(&model.checkpoint, hidden)?;
        sum += window_losses(model, &hidden, tokens, seq_len)?.iter().sum::<f64>();
    }
    let count = windows.count();
    let perplexity = (sum / count as f64).exp();
    if !perplexity.is_finite() {
        return invalid!(
            "{}: the model's output is not finite on this text",
            model.checkpoint.path.display()
        );
    }
    Ok(Perplexity { perplexity, tokens: windows.tokens.len(), windows: count })
}

/// The mean next-token loss of each window. The head is applied a few thousand
/// rows at a time, with a running log-sum-exp per token, so that logits of the
/// whole vocabulary never exist.
fn window_losses(
    model: &Model,
    hidden: &Matrix,
    tokens: &[u32],
    seq_len: usize,
) -> Result<Vec<f64>> {
    const TOKENS: usize = 1024;
    #[derive(Clone, Copy)]
    struct Running {
        max: f32,
        sum: f64,
        target: f32,
    }
    let mut running = vec![Running { max: f32::NEG_INFINITY, sum: 0.0, target: 0.0 }; tokens.len()];
    let vocabulary = model.shape().vocabulary;
    for first in (0..vocabulary).step_by(HEAD_ROWS) {
        let rows = first..(first + HEAD_ROWS).min(vocabulary);
        let head = model.checkpoint.rows(model.family.head(), rows.clone(), hidden.cols)?;
        for start in (0..tokens.len()).step_by(TOKENS) {
            let part = start..(start + TOKENS).min(tokens.len());
            let logits = matmul_nt(hidden.rows(part.clone()), head.view());
            running[part].par_iter_mut().enumerate().for_each(|(i, r)| {
                let t = start + i;
                if (t + 1) % seq_len == 0 {
                    return; // a window's last token has no successor in it
                }
                let row = logits.row(i);
                let target = tokens[t + 1] as usize;
                if rows.contains(&target) {
                    r.target = row[target - first];
                }
                let max = row.iter().fold(r.max, |m, &v| if v > m { v } else { m });
                r.sum = r.sum * f64::from(r.max - max).exp() + f64::from(exp_sum(row, max));
                r.max = max;
            });
        }
    }
    Ok(running
        .chunks_exact(seq_len)
        .map(|window| {
            let loss = |r: &Running| f64::from(r.max) + r.sum.ln() - f64::from(r.target);
            window[..seq_len - 1].iter().map(loss).sum::<f64>() / (seq_len - 1) as f64
        })
        .collect())
}

//! How likely a model finds given continuations.

use super::{BATCH, head};
use crate::error::{Result, invalid};
use crate::linalg::Matrix;
use crate::model::Model;
use crate::pipeline::run;
use crate::ranks::Communicator;
use std::collections::BTreeMap;

/// Texts are padded to a multiple of this many tokens, so that many of them
/// have the same length and go through a layer together.
const LENGTHS: usize = 8;

/// A continuation and what comes before it, as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the model is given; not empty.
    pub context: Vec<u32>,
    /// What is scored; not empty.
    pub continuation: Vec<u32>,
}

/// How likely a continuation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// The logarithm of its probability after the context, in nats.
    pub log_likelihood: f64,
    /// Whether greedy decoding would give it.
    pub is_greedy: bool,
}

/// Texts of one padded length.
struct Batch {
    seq_len: usize,
    texts: Vec<(Vec<u32>, Vec<usize>)>,
    hidden: Matrix,
}

/// Scores each continuation, each rank its part of them. A request longer than the model's positions loses
/// tokens from its left; requests that differ in their last token only share a
/// forward pass. `progress` is told the decoder layers done and to do.
///
/// # Errors
/// Where weights cannot be read, a request has an empty part, or the model's
/// output is not finite.
pub fn likelihoods(
    model: &Model,
    requests: &[Request],
    ranks: &dyn Communicator,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Likelihood>> {
    let mine = ranks.share(requests.len());
    let positions = model.shape().positions.unwrap_or(2048);
    // What the model is given: everything but the last token, to its right
    // length; and which requests look at it.
    let mut texts: BTreeMap<(usize, Vec<u32>), Vec<usize>> = BTreeMap::new();
    for (i, request) in requests.iter().enumerate() {
        let Request { context, continuation } = request;
        if context.is_empty() || continuation.is_empty() || continuation.len() > positions {
            return invalid!(
                "request {i} has a context of {} and a continuation of {} tokens; at least one each is needed, and at most {positions} fit the model",
                context.len(),
                continuation.len()
            );
        }
        if let Some(id) = continuation.iter().find(|id| **id as usize >= model.shape().vocabulary) {
            return invalid!("token id {id} is outside the model's vocabulary");
        }
        if !mine.contains(&i) {
            continue;
        }
        let mut text = [context.as_slice(), continuation].concat();
        text.pop();
        let text = text.split_off(text.len().saturating_sub(positions));
        let seq_len = text.len().next_multiple_of(LENGTHS).min(positions);
        texts.entry((seq_len, text)).or_default().push(i);
    }
    let mut parts: Vec<Vec<Batch>> = Vec::new();
    let (mut room, hidden) = (0, model.shape().hidden);
    for ((seq_len, text), of) in texts {
        if room < seq_len * hidden {
            parts.push(Vec::new());
            room = BATCH.max(seq_len * hidden);
        }
        room -= seq_len * hidden;
        let Some(part) = parts.last_mut() else { continue };
        match part.last_mut() {
            Some(batch) if batch.seq_len == seq_len => batch.texts.push((text, of)),
            _ => part.push(Batch {
                seq_len,
                texts: vec![(text, of)],
                hidden: Matrix::zeros(0, hidden),
            }),
        }
    }
    let mut out = vec![Likelihood { log_likelihood: 0.0, is_greedy: true }; requests.len()];
    let (layers, count) = (model.shape().layers, parts.len());
    for (done, mut part) in parts.into_iter().enumerate() {
        for batch in &mut part {
            batch.hidden = model.embed(&batch.padded(), batch.seq_len)?;
        }
        for index in 0..layers {
            let layer = model.layer(index)?;
            for Batch { seq_len, hidden, .. } in &mut part {
                run(&layer, hidden, *seq_len);
            }
            progress(done * layers + index + 1, count * layers);
        }
        score(model, requests, &part, &mut out)?;
    }
    let mut told = vec![0.0; 2 * requests.len()];
    for i in mine {
        told[2 * i] = out[i].log_likelihood;
        told[2 * i + 1] = f64::from(out[i].is_greedy);
    }
    ranks.sum(&mut told);
    for (l, told) in out.iter_mut().zip(told.chunks_exact(2)) {
        *l = Likelihood { log_likelihood: told[0], is_greedy: told[1] > 0.0 };
    }
    if out.iter().any(|l| !l.log_likelihood.is_finite()) {
        return invalid!(
            "{}: the model's output is not finite on these texts",
            model.checkpoint.path.display()
        );
    }
    Ok(out)
}

impl Batch {
    /// The texts filled up on their right, where causal attention never looks.
    fn padded(&self) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(self.texts.len() * self.seq_len);
        for (i, (text, _)) in self.texts.iter().enumerate() {
            tokens.extend_from_slice(text);
            tokens.resize((i + 1) * self.seq_len, 0);
        }
        tokens
    }
}

/// Adds up the scores of the batches' continuations.
fn score(
    model: &Model,
    requests: &[Request],
    batches: &[Batch],
    out: &mut [Likelihood],
) -> Result<()> {
    let (mut rows, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches {
        for (i, (text, of)) in batch.texts.iter().enumerate() {
            let end = i * batch.seq_len + text.len();
            for &request in of {
                // The last tokens of the text predict the continuation.
                let continuation = &requests[request].continuation;
                for (row, &target) in (end - continuation.len()..end).zip(continuation) {
                    rows.extend_from_slice(batch.hidden.row(row));
                    targets.push(Some(target));
                    owners.push(request);
                }
            }
        }
    }
    let hidden = Matrix::new(targets.len(), model.shape().hidden, rows);
    let hidden = model.family.finish(&model.checkpoint, hidden)?;
    for (scored, owner) in head::score(model, &hidden, &targets)?.into_iter().zip(owners) {
        let Some(scored) = scored else { continue };
        out[owner].log_likelihood += scored.log_probability;
        out[owner].is_greedy &= scored.is_greedy;
    }
    Ok(())
}

//! Measures how likely a model finds given continuations of texts.

use crate::{batch::HIDDEN_VALUES, head};
use sparsellm_base::{Event, Observer, Result, input_error, numerics_error};
use sparsellm_model::Model;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use std::{collections::BTreeMap, ops::Range};

/// Texts are padded to a multiple of this many tokens, so that many of them have the same length
/// and go through a layer together.
const LENGTHS: usize = 8;

/// The longest text, in tokens, for a model that does not say how many positions it has.
const POSITIONS: usize = 2048;

/// A continuation that is to be scored after its context, both as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The text that the model is given; at least one token.
    pub context: Vec<u32>,
    /// The text that is scored after the context; at least one token.
    pub continuation: Vec<u32>,
}

/// How likely a model finds a continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// The logarithm of the continuation's probability after its context, in nats.
    pub log_likelihood: f64,
    /// Whether greedy decoding would produce the continuation, token by token.
    pub is_greedy: bool,
}

impl Likelihood {
    /// The likelihood of an empty continuation.
    const START: Likelihood = Likelihood { log_likelihood: 0.0, is_greedy: true };
}

/// Texts of one padded length, each with the indices of the requests that it answers.
struct Batch {
    seq_len: usize,
    texts: Vec<(Vec<u32>, Vec<usize>)>,
    hidden: Matrix,
}

/// Scores the continuation of every request, in the order of the requests.
///
/// A request that is longer than the model's positions loses tokens at its start. Requests that
/// differ only in their last token share a forward pass. Each rank scores its share of the
/// requests, and all ranks get every result. After every decoder layer, `observe` receives an
/// [`Event::Measured`] with this `what`.
///
/// # Errors
/// If a request has an empty part, does not fit the model or holds an id outside the vocabulary, if
/// weights cannot be read, or if the model's output is not finite; and the observer's own error,
/// which ends the measurement.
pub fn likelihoods(
    model: &Model,
    requests: &[Request],
    what: &str,
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<Vec<Likelihood>> {
    let layers = model.shape().layers;
    let positions = model.shape().positions.unwrap_or(POSITIONS);
    for (index, request) in requests.iter().enumerate() {
        check(model, index, request, positions)?;
    }
    let mine = ranks.share(requests.len());
    let loads = loads(requests, mine.clone(), positions, model.shape().hidden);
    let of = loads.len() * layers;
    let mut found = vec![Likelihood::START; requests.len()];
    for (before, mut load) in loads.into_iter().enumerate() {
        for batch in &mut load {
            batch.hidden = model.embed(&batch.padded(), batch.seq_len)?;
        }
        for index in 0..layers {
            let block = model.block(index)?;
            for batch in &mut load {
                block.run(&mut batch.hidden, batch.seq_len);
            }
            observe.notify(Event::Measured { what, done: before * layers + index + 1, of })?;
        }
        score(model, requests, &load, &mut found)?;
    }
    exchange(&mut found, mine, ranks);
    if found.iter().any(|l| !l.log_likelihood.is_finite()) {
        return numerics_error!(
            "{}: the model's output is not finite on these texts",
            model.checkpoint.path.display()
        );
    }
    Ok(found)
}

/// Checks that a request can be scored.
fn check(model: &Model, index: usize, request: &Request, positions: usize) -> Result<()> {
    let Request { context, continuation } = request;
    if context.is_empty() || continuation.is_empty() || continuation.len() > positions {
        return input_error!(
            "request {index} has a context of {} and a continuation of {} tokens; at least one each is needed, and at most {positions} fit the model",
            context.len(),
            continuation.len()
        );
    }
    match continuation.iter().find(|id| **id as usize >= model.shape().vocabulary) {
        Some(id) => input_error!("token id {id} is outside the model's vocabulary"),
        None => Ok(()),
    }
}

/// Collects the texts of the requests `mine` into batches of one length, and the batches into
/// loads, each with as many hidden states as are kept in memory at once.
fn loads(
    requests: &[Request],
    mine: Range<usize>,
    positions: usize,
    hidden: usize,
) -> Vec<Vec<Batch>> {
    // The distinct texts that the model is given, by padded length, each with the requests that
    // it answers. A text is the whole request without its last token, which is only predicted.
    let mut texts: BTreeMap<(usize, Vec<u32>), Vec<usize>> = BTreeMap::new();
    for i in mine {
        let Request { context, continuation } = &requests[i];
        let mut text = [context.as_slice(), continuation].concat();
        text.pop();
        let text = text.split_off(text.len().saturating_sub(positions));
        let seq_len = text.len().next_multiple_of(LENGTHS).min(positions);
        texts.entry((seq_len, text)).or_default().push(i);
    }
    let mut loads: Vec<Vec<Batch>> = Vec::new();
    let mut room = 0;
    for ((seq_len, text), of) in texts {
        if room < seq_len * hidden {
            loads.push(Vec::new());
            room = HIDDEN_VALUES.max(seq_len * hidden);
        }
        room -= seq_len * hidden;
        let Some(load) = loads.last_mut() else { continue };
        match load.last_mut() {
            Some(batch) if batch.seq_len == seq_len => batch.texts.push((text, of)),
            _ => load.push(Batch {
                seq_len,
                texts: vec![(text, of)],
                hidden: Matrix::zeros(0, hidden),
            }),
        }
    }
    loads
}

impl Batch {
    /// The texts padded at their end. Causal attention never looks there, so any token will do.
    fn padded(&self) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(self.texts.len() * self.seq_len);
        for (i, (text, _)) in self.texts.iter().enumerate() {
            tokens.extend_from_slice(text);
            tokens.resize((i + 1) * self.seq_len, 0);
        }
        tokens
    }
}

/// Adds the scores of the batches' continuations to `found`.
fn score(
    model: &Model,
    requests: &[Request],
    batches: &[Batch],
    found: &mut [Likelihood],
) -> Result<()> {
    let (mut rows, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches {
        for (i, (text, of)) in batch.texts.iter().enumerate() {
            let end = i * batch.seq_len + text.len();
            for &request in of {
                // The hidden states of the text's last tokens predict the continuation.
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
    let hidden = model.finish(hidden)?;
    for (scored, owner) in head::score(model, &hidden, &targets)?.into_iter().zip(owners) {
        let Some(scored) = scored else { continue };
        found[owner].log_likelihood += scored.log_probability;
        found[owner].is_greedy &= scored.is_greedy;
    }
    Ok(())
}

/// Shares the results: every rank fills in those of its own requests, `mine`, and gets those of all
/// others.
fn exchange(found: &mut [Likelihood], mine: Range<usize>, ranks: &dyn Communicator) {
    let mut told = vec![0.0; 2 * found.len()];
    for i in mine {
        told[2 * i] = found[i].log_likelihood;
        told[2 * i + 1] = f64::from(found[i].is_greedy);
    }
    ranks.sum(&mut told);
    for (likelihood, told) in found.iter_mut().zip(told.chunks_exact(2)) {
        *likelihood = Likelihood { log_likelihood: told[0], is_greedy: told[1] > 0.0 };
    }
}

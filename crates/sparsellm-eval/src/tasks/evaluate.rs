//! Asks a model the questions of a task.

use super::{
    item::Item,
    record::{ItemReport, TaskReport},
    task::Task,
};
use crate::likelihood::{Likelihood, Request, likelihoods};
use sparsellm_base::{Observer, Result, input_error};
use sparsellm_model::Model;
use sparsellm_ranks::Communicator;
use sparsellm_text::Tokenizer;

/// Asks a model the questions of one task. Returns the overall result, and the result of each
/// question in order.
///
/// Each rank asks its share of the questions, and all ranks get the same results. After every
/// decoder layer, `observe` receives an [`Event::Measured`](sparsellm_base::Event::Measured) whose
/// `what` is the task's name.
///
/// # Errors
/// If there are no questions, one is too long for the model, weights cannot be read, or the model's
/// output is not finite; and the observer's own error, which ends the measurement.
pub fn evaluate(
    model: &Model,
    tokenizer: &Tokenizer,
    task: Task,
    items: &[Item],
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<(TaskReport, Vec<ItemReport>)> {
    if items.is_empty() {
        return input_error!("{}: there are no questions to ask", task.name());
    }
    let mut requests = Vec::new();
    for (index, item) in items.iter().enumerate() {
        for [context, continuation] in &item.requests {
            let request = encode(tokenizer, context, continuation)?;
            if request.context.is_empty() || request.continuation.is_empty() {
                return input_error!(
                    "{} question {index}: the tokenizer leaves nothing of \"{context}\" or \"{continuation}\" to ask",
                    task.name()
                );
            }
            requests.push(request);
        }
    }
    let likelihoods = likelihoods(model, &requests, task.name(), ranks, observe)?;
    let mut rest = likelihoods.as_slice();
    let mut reports = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let (mine, others) = rest.split_at(item.requests.len());
        rest = others;
        reports.push(judge(task, index, item, mine));
    }
    Ok((summary(task, &reports), reports))
}

/// Tokenizes a context and its continuation as `_encode_pair` of lm-evaluation-harness does. White
/// space at the end of the context moves to the continuation. The tokens of the continuation are
/// those of the whole text that follow the tokens of the context. An empty context becomes the
/// token that every text starts with.
fn encode(tokenizer: &Tokenizer, context: &str, continuation: &str) -> Result<Request> {
    if context.is_empty() {
        let (start, mut continuation) = tokenizer.encode_after_start(continuation)?;
        if continuation.first() == Some(&start) {
            continuation.remove(0);
        }
        return Ok(Request { context: vec![start], continuation });
    }
    let trimmed = context.trim_end_matches(is_python_space);
    let whole = tokenizer.encode(&format!("{context}{continuation}"))?;
    let context = tokenizer.encode(trimmed)?;
    let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
    Ok(Request { context, continuation })
}

/// Whether Python's `str.rstrip` strips the character.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The result of a question whose choices have these likelihoods.
fn judge(task: Task, index: usize, item: &Item, likelihoods: &[Likelihood]) -> ItemReport {
    let log_likelihoods: Vec<f64> = likelihoods.iter().map(|l| l.log_likelihood).collect();
    let per_character = log_likelihoods.iter().zip(&item.lengths).map(|(l, &n)| l / n as f64);
    ItemReport {
        task: task.name(),
        index,
        gold: item.gold,
        acc: match (task, likelihoods) {
            (Task::LambadaOpenai, [only, ..]) => only.is_greedy,
            _ => argmax(log_likelihoods.iter().copied()) == Some(item.gold),
        },
        acc_norm: task.has_acc_norm().then(|| argmax(per_character) == Some(item.gold)),
        log_likelihoods,
    }
}

/// The index of the first largest value, as in `np.argmax`.
fn argmax(values: impl Iterator<Item = f64>) -> Option<usize> {
    let better = |best: Option<(usize, f64)>, (i, v): (usize, f64)| match best {
        Some((_, b)) if b >= v => best,
        _ => Some((i, v)),
    };
    values.enumerate().fold(None, better).map(|(i, _)| i)
}

/// The overall result of a task's questions.
fn summary(task: Task, items: &[ItemReport]) -> TaskReport {
    let n = items.len() as f64;
    let share = |right: &dyn Fn(&ItemReport) -> bool| {
        let p = items.iter().filter(|item| right(item)).count() as f64 / n;
        // The standard error of a mean of zeros and ones.
        (p, (p * (1.0 - p) / (n - 1.0).max(1.0)).sqrt())
    };
    let (acc, acc_stderr) = share(&|item| item.acc);
    let norm = task.has_acc_norm().then(|| share(&|item| item.acc_norm == Some(true)));
    let perplexity = (task == Task::LambadaOpenai)
        .then(|| (-items.iter().flat_map(|i| &i.log_likelihoods).sum::<f64>() / n).exp());
    TaskReport {
        task: task.name().into(),
        items: items.len(),
        acc,
        acc_stderr,
        acc_norm: norm.map(|(p, _)| p),
        acc_norm_stderr: norm.map(|(_, e)| e),
        perplexity,
    }
}

//! Zero-shot tasks with the prompts and metrics of lm-evaluation-harness
//! (0.4.13), so that scores can be compared with its.

mod local;
mod prompts;

pub use local::file_in;

use super::likelihood::{Likelihood, Request, likelihoods};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ranks::Communicator;
use crate::report::TaskReport;
use crate::text::{
    Tokenizer,
    rows::{Row, at},
};
use serde::Serialize;
use std::path::Path;

/// What is wrong with a row, in words.
type Parsed<T> = std::result::Result<T, String>;

/// A zero-shot task, by lm-evaluation-harness's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Task {
    /// The last word of a passage (Paperno et al., 2016; OpenAI's version).
    LambadaOpenai,
    /// How a scene goes on (Zellers et al., 2019).
    HellaSwag,
    /// How something is done (Bisk et al., 2020).
    Piqa,
    /// Whom a pronoun means (Sakaguchi et al., 2020).
    WinoGrande,
    /// School science, easy (Clark et al., 2018).
    ArcEasy,
    /// School science, hard.
    ArcChallenge,
    /// Yes or no, after a passage (Clark et al., 2019).
    BoolQ,
    /// Whether a sentence follows from another (GLUE).
    Rte,
    /// Elementary science (Mihaylov et al., 2018).
    OpenBookQa,
}

impl Task {
    /// Every task.
    pub const ALL: [Task; 9] = [
        Task::LambadaOpenai,
        Task::HellaSwag,
        Task::Piqa,
        Task::WinoGrande,
        Task::ArcEasy,
        Task::ArcChallenge,
        Task::BoolQ,
        Task::Rte,
        Task::OpenBookQa,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Task::LambadaOpenai => "lambada_openai",
            Task::HellaSwag => "hellaswag",
            Task::Piqa => "piqa",
            Task::WinoGrande => "winogrande",
            Task::ArcEasy => "arc_easy",
            Task::ArcChallenge => "arc_challenge",
            Task::BoolQ => "boolq",
            Task::Rte => "rte",
            Task::OpenBookQa => "openbookqa",
        }
    }

    /// Its data set on the hub, and in it the file of the split that is asked.
    pub fn on_hub(self) -> [&'static str; 2] {
        match self {
            Task::LambadaOpenai => ["EleutherAI/lambada_openai", "data/lambada_test.jsonl"],
            Task::HellaSwag => ["Rowan/hellaswag", "data/validation-00000-of-00001.parquet"],
            Task::Piqa => ["baber/piqa@refs/convert/parquet", "default/validation/0000.parquet"],
            Task::WinoGrande => {
                ["allenai/winogrande", "winogrande_xl/validation-00000-of-00001.parquet"]
            }
            Task::ArcEasy => ["allenai/ai2_arc", "ARC-Easy/test-00000-of-00001.parquet"],
            Task::ArcChallenge => ["allenai/ai2_arc", "ARC-Challenge/test-00000-of-00001.parquet"],
            Task::BoolQ => ["aps/super_glue", "boolq/validation-00000-of-00001.parquet"],
            Task::Rte => ["nyu-mll/glue", "rte/validation-00000-of-00001.parquet"],
            Task::OpenBookQa => ["allenai/openbookqa", "main/test-00000-of-00001.parquet"],
        }
    }

    /// Whether `acc_norm` is one of its metrics.
    fn has_acc_norm(self) -> bool {
        use Task::*;
        matches!(self, HellaSwag | Piqa | ArcEasy | ArcChallenge | OpenBookQa)
    }
}

impl std::str::FromStr for Task {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Task::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| {
            format!("unknown task {name}; known are {}", Task::ALL.map(Task::name).join(", "))
        })
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Per choice, what the model is given and what is scored after it.
    pub requests: Vec<[String; 2]>,
    /// Per choice, its characters, by which `acc_norm` divides.
    pub lengths: Vec<usize>,
    /// The right choice.
    pub gold: usize,
}

/// How a model did on one question.
#[derive(Clone, Debug, Serialize)]
pub struct ItemReport {
    /// The task.
    pub task: &'static str,
    /// The question's number in the file, from 0.
    pub index: usize,
    /// Per choice, its log-likelihood in nats.
    pub log_likelihoods: Vec<f64>,
    /// The right choice.
    pub gold: usize,
    /// Whether it was found the likeliest (LAMBADA: whether greedy decoding
    /// gives it).
    pub acc: bool,
    /// The same by likelihood per character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<bool>,
}

/// The first `limit` questions of a task in a file: the hub's rows, or one of
/// the forms in which the data sets go around.
///
/// # Errors
/// Where the file cannot be read, holds no row, or a row is not what the task's
/// rows are, with file and row.
pub fn load(task: Task, path: &Path, limit: Option<usize>) -> Result<Vec<Item>> {
    let rows = local::rows(task, path)?.take(limit.unwrap_or(usize::MAX));
    let items: Vec<Item> = rows
        .map(|row| {
            let Row { number, value } = row?;
            prompts::item(task, &value).map_err(|e| at(path, number, e))
        })
        .collect::<Result<_>>()?;
    if items.is_empty() {
        return Err(Error::Invalid(format!("{}: the file holds no rows", path.display())));
    }
    Ok(items)
}

/// Asks a model the questions of one task; `progress` is told the decoder
/// layers done and to do.
///
/// # Errors
/// Where a question is too long, or the model's output is not finite.
pub fn evaluate(
    model: &Model,
    tokenizer: &Tokenizer,
    task: Task,
    items: &[Item],
    ranks: &dyn Communicator,
    progress: impl FnMut(usize, usize),
) -> Result<(TaskReport, Vec<ItemReport>)> {
    let mut requests = Vec::new();
    for (index, item) in items.iter().enumerate() {
        for [context, continuation] in &item.requests {
            let request = encode(tokenizer, context, continuation)?;
            if request.context.is_empty() || request.continuation.is_empty() {
                return Err(Error::Invalid(format!(
                    "{} question {index}: the tokenizer leaves nothing of \"{context}\" or \"{continuation}\" to ask",
                    task.name()
                )));
            }
            requests.push(request);
        }
    }
    let likelihoods = likelihoods(model, &requests, ranks, progress)?;
    let mut rest = likelihoods.as_slice();
    let mut reports = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let (mine, others) = rest.split_at(item.requests.len());
        rest = others;
        reports.push(judge(task, index, item, mine));
    }
    Ok((summary(task, &reports), reports))
}

/// lm-evaluation-harness's `_encode_pair`: white space at the context's end
/// goes to the continuation, whose tokens are those of the whole text that the
/// context alone does not have. Where there is no context, a text's first token
/// stands for it.
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

/// What Python's `str.rstrip` strips.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

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

/// The first largest, as `np.argmax`.
fn argmax(values: impl Iterator<Item = f64>) -> Option<usize> {
    let better = |best: Option<(usize, f64)>, (i, v): (usize, f64)| match best {
        Some((_, b)) if b >= v => best,
        _ => Some((i, v)),
    };
    values.enumerate().fold(None, better).map(|(i, _)| i)
}

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

//! `sparsellm eval`.

use crate::context::{Context, print, print_json};
use crate::{
    args,
    progress::{self, Progress},
};
use serde_json::{Map, Value, json};
use sparsellm::{Error, Evaluator, Model, Perplexity, Result};
use sparsellm_eval::{
    TaskReport, perplexity,
    tasks::{self, Item, ItemReport, Task},
};
use sparsellm_ranks::Communicator;
use sparsellm_text::{Segments, Tokenizer};
use std::path::Path;

pub fn run(args: &args::Eval, context: &Context) -> Result<()> {
    let model = progress::open(&args.model, context)?;
    let asked = Asked {
        data: &args.data,
        text_field: args.text_field.as_deref(),
        seq_len: args.seq_len,
        max_windows: args.max_windows,
    };
    let texts = texts(&model, asked, context)?;
    let questions = questions(&args.tasks, args.task_data.as_deref(), args.limit, context)?;
    let mut results: Vec<Value> = Vec::new();
    for (data, windows) in texts {
        let p = measure(&model, data, &windows, context)?;
        let seq_len = windows.seq_len;
        if !args.json {
            print(&format!(
                "{data}: perplexity {:.4} over {} windows of {seq_len} tokens\n",
                p.perplexity, p.windows
            ))?;
        }
        results.push(json!({
            "data": data,
            "perplexity": p.perplexity,
            "tokens": p.tokens,
            "windows": p.windows,
            "seq_len": seq_len,
        }));
    }
    let (mut reports, mut outcomes) = (Vec::new(), Vec::new());
    for (report, items) in ask(&model, &questions, &*context.ranks)? {
        if !args.json {
            print(&format!("{}\n", sentence(&report)))?;
        }
        reports.push(report);
        outcomes.extend(items);
    }
    if let Some(path) = &args.items
        && context.ranks.rank() == 0
    {
        write_lines(path, &outcomes)?;
    }
    if args.json {
        let mut document = Map::new();
        document.insert("model".into(), args.model.as_str().into());
        document.insert("results".into(), results.into());
        if !reports.is_empty() {
            document.insert("tasks".into(), json!(reports));
        }
        print_json(&document)?;
    }
    Ok(())
}

/// The result of a task, in one line.
fn sentence(report: &TaskReport) -> String {
    let mut text = format!(
        "{}: acc {:.4} ± {:.4} over {} questions",
        report.task, report.acc, report.acc_stderr, report.items
    );
    if let (Some(norm), Some(error)) = (report.acc_norm, report.acc_norm_stderr) {
        text.push_str(&format!(", acc_norm {norm:.4} ± {error:.4}"));
    }
    if let Some(perplexity) = report.perplexity {
        text.push_str(&format!(", perplexity {perplexity:.4}"));
    }
    text
}

/// Writes the outcomes to a file, one JSON object per line.
fn write_lines(path: &Path, outcomes: &[ItemReport]) -> Result<()> {
    let mut text = String::new();
    for outcome in outcomes {
        let line = serde_json::to_string(outcome)
            .map_err(|e| Error::Input(format!("{}: {e}", path.display())))?;
        text.push_str(&line);
        text.push('\n');
    }
    sparsellm_report::write(path, &text)
}

/// Reads the questions of each task. All files are read before any question is asked, so that a
/// bad file shows at once.
pub fn questions(
    tasks: &[args::AskedTask],
    folder: Option<&Path>,
    limit: Option<usize>,
    context: &Context,
) -> Result<Vec<(Task, Vec<Item>)>> {
    let load = |asked: &args::AskedTask| {
        let file = match (&asked.file, folder) {
            (Some(file), _) => file.clone(),
            (None, Some(folder)) => tasks::file_in(asked.task, folder)?,
            (None, None) => {
                let [id, path] = asked.task.on_hub();
                let mut progress = Progress::new();
                let download = || context.hub.dataset_file(id, path, &mut progress.observer());
                context.ranks.rank_zero_first(download)?
            }
        };
        Ok((asked.task, tasks::load(asked.task, &file, limit)?))
    };
    tasks.iter().map(load).collect()
}

/// Asks a model all questions, and shows the progress.
pub fn ask(
    model: &Model,
    questions: &[(Task, Vec<Item>)],
    ranks: &dyn Communicator,
) -> Result<Vec<(TaskReport, Vec<ItemReport>)>> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let tokenizer = Tokenizer::from_checkpoint(&model.checkpoint)?;
    let ask = |(task, items): &(Task, Vec<Item>)| {
        let mut progress = Progress::new();
        tasks::evaluate(model, &tokenizer, *task, items, ranks, &mut progress.observer())
    };
    questions.iter().map(ask).collect()
}

/// What texts are measured on, and how.
pub struct Asked<'a> {
    pub data: &'a [String],
    pub text_field: Option<&'a str>,
    pub seq_len: Option<usize>,
    pub max_windows: Option<usize>,
}

/// Reads the windows of each text. All texts are read before any is measured, so that a bad one
/// shows at once.
pub fn texts<'a>(
    model: &Model,
    asked: Asked<'a>,
    context: &Context,
) -> Result<Vec<(&'a str, Segments)>> {
    let windows = |text: &'a String| {
        let mut progress = Progress::new();
        let mut evaluator = Evaluator::new(model)
            .seq_len(asked.seq_len)
            .max_windows(asked.max_windows)
            .text_field(asked.text_field.map(String::from))
            .hub(&context.hub)
            .ranks(&*context.ranks)
            .observer(progress.observer());
        Ok((text.as_str(), evaluator.windows(text)?))
    };
    asked.data.iter().map(windows).collect()
}

/// Measures a model on the windows of the text `data`, and shows the progress.
pub fn measure(
    model: &Model,
    data: &str,
    windows: &Segments,
    context: &Context,
) -> Result<Perplexity> {
    let mut progress = Progress::new();
    perplexity(model, windows, data, &*context.ranks, &mut progress.observer())
}

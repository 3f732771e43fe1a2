//! `sparsellm prune`.

use crate::context::{Context, note, print, print_json};
use crate::{
    args,
    profile::Table,
    progress::{self, Progress},
    stop,
};
use serde_json::Value;
use sparsellm::{Error, Model, Profile, PruneReport, Pruner, Result};
use sparsellm_checkpoint::{Existing, unfinished};
use sparsellm_tensor::gemm_peak;
use std::time::Instant;

pub fn run(args: &args::Prune, context: &Context) -> Result<()> {
    stop::watch(&*context.ranks)?;
    let started = Instant::now();
    let model = progress::open(&args.model, context)?;
    let opening = started.elapsed();
    let measured = args.profile.then(|| (Profile::default(), gemm_peak()));
    let mut progress = Progress::new();
    let report = pruner(args, &model, context)?
        .profile(measured.as_ref().map(|(profile, _)| profile))
        .observer(progress.observer())
        .write(&args.output);
    drop(progress);
    let mut report =
        report.map_err(|e| with_what_is_left(e, unfinished(&args.output), "layers"))?;
    if report.seconds > 0.0 {
        // A run that was already finished reports 0 seconds, and opening does not count either.
        report.seconds += opening.as_secs_f64();
    }
    let table = measured.map(|(profile, peak)| Table::new(&profile, peak));
    tell(args, &model, &report, table.as_ref(), context)
}

/// Adds to an error what the failed run leaves: its finished `units` (`done` of them). Only a
/// failure that came from outside, such as a full disk or a signal, can be mended by resuming;
/// an invalid input or numbers that break down would fail in the same way again.
pub fn with_what_is_left(error: Error, done: usize, units: &str) -> Error {
    let left = match error {
        _ if done == 0 => return error,
        Error::Usage(_) => return error,
        Error::Io { .. } | Error::Interrupted => {
            "and the same command with --resume goes on from there"
        }
        _ => "which stay beside the output until --force discards them",
    };
    Error::Input(format!("{error}; finished {units}: {done}, {left}"))
}

/// The library's `Pruner`, set up as the arguments ask.
pub fn pruner<'a>(
    args: &'a args::Prune,
    model: &'a Model,
    context: &'a Context,
) -> Result<Pruner<'a>> {
    let existing = Existing { replace: args.force, resume: args.resume };
    let pruner = Pruner::for_model(model)
        .named(args.model.as_str())
        .method(args.method()?)
        .settings(args.settings.asked())
        .samples(args.samples)
        .seq_len(args.seq_len)
        .seed(args.seed)
        .text_field(args.text_field.clone())
        .evaluate_on(args.eval.clone(), args.max_windows)
        .memory(args.memory)
        .existing(existing)
        .hub(&context.hub)
        .ranks(&*context.ranks);
    Ok(match &args.calibration {
        Some(text) => pruner.calibration(text),
        None => pruner,
    })
}

/// Prints the report.
fn tell(
    args: &args::Prune,
    model: &Model,
    report: &PruneReport,
    table: Option<&Table>,
    context: &Context,
) -> Result<()> {
    if let Some(table) = table {
        note(table.to_string().trim_end());
    }
    if args.json {
        return match table {
            None => print_json(report),
            Some(table) => print_json(&with_profile(report, table)?),
        };
    }
    print(&format!(
        "{}: {} of {} layers at {:.2} % sparsity by {}, in {:.1} s with {:.2} GB of memory{}\n",
        report.output,
        report.layers.len(),
        model.shape().layers,
        100.0 * report.sparsity,
        report.method,
        report.seconds,
        report.peak_rss_bytes as f64 / 1e9,
        match context.ranks.size() {
            1 => String::new(),
            ranks => format!(" on each of {ranks} ranks"),
        },
    ))?;
    for p in &report.perplexity {
        let (data, windows, seq_len) = (&p.data, p.windows, p.seq_len);
        print(&format!(
            "{data}: perplexity {:.4} before, {:.4} after, over {windows} windows of {seq_len} tokens\n",
            p.dense, p.pruned
        ))?;
    }
    Ok(())
}

/// The report as JSON, with the profile added to it.
fn with_profile(report: &PruneReport, table: &Table) -> Result<Value> {
    let mut json = serde_json::to_value(report)
        .map_err(|e| Error::Input(format!("cannot write JSON: {e}")))?;
    json["profile"] = table.json();
    Ok(json)
}

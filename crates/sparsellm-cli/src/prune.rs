//! `sparsellm prune`.

use crate::{
    Context, args, args::label, eval, note, print, print_json, profile::Ledger, progress::Progress,
    stop,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sparsellm::{
    Error, Model, Result, Settings, Tokenizer, Writer,
    checkpoint::{self, Existing, REPORT},
    pipeline::{self, Calibration},
    profile::{Phase, phase},
    report::{self, Dense, LayerReport, Measured, PerplexityReport, PruneReport, Run, Sweep},
    text::{Segments, Use},
};
use std::{collections::BTreeMap, path::Path, time::Instant};

pub fn run(args: &args::Prune, context: &Context) -> Result<()> {
    let ranks = &*context.ranks;
    stop::watch(ranks)?;
    let started = Instant::now();
    let model = args::open(&args.model, context)?;
    let settings = settings(args);
    settings.check(&model)?;
    let calibration = calibration(args, &settings, &model, context)?.map(Calibration::new);
    let texts = match args.eval.as_slice() {
        [] => Vec::new(),
        files => eval::texts(&model, files, args.seq_len, args.max_windows, context)?,
    };
    let segments = calibration.as_ref().map(|c| &c.segments);
    let identity = match ranks.rank() {
        0 => identity(args, &model, &settings, segments)?,
        _ => Value::Null, // the first's counts
    };
    let (settings, texts) = (&settings, &texts);
    let job = Job { args, model: &model, settings, texts, identity, started, context };
    if args.resume {
        let finished = || checkpoint::finished(&args.output, &job.identity);
        if let Value::Array(layers) = ranks.told(|| Ok(finished().into()))? {
            return job.tell_again(&layers);
        }
    }
    let existing = Existing { replace: args.force, resume: args.resume };
    let writer = Writer::create(&model.checkpoint, &args.output, &job.identity, existing, ranks)?;
    job.work(calibration.as_ref(), writer).map_err(|e| match checkpoint::unfinished(&args.output) {
        0 => e,
        _ if matches!(e, Error::Usage(_)) => e,
        done => Error::Invalid(format!(
            "{e}; finished layers: {done}, and the same command with --resume goes on from there"
        )),
    })
}

/// One run, with all that is known before it begins.
struct Job<'a> {
    args: &'a args::Prune,
    model: &'a Model,
    settings: &'a Settings,
    texts: &'a [(&'a str, Segments)],
    /// All that decides the result.
    identity: Value,
    started: Instant,
    context: &'a Context,
}

impl Job<'_> {
    /// Prunes, measures, and puts the checkpoint in its place.
    fn work(&self, calibration: Option<&Calibration>, mut writer: Writer) -> Result<()> {
        let args = self.args;
        let evaluation = Instant::now();
        let dense = self.measure(self.model)?;
        let evaluation = evaluation.elapsed();
        let ledger = args.profile.then(Ledger::open);
        let mut progress = Progress::new();
        let layers = pipeline::prune(
            self.model,
            calibration,
            self.settings,
            args.memory,
            &mut writer,
            &*self.context.ranks,
            &mut |event| {
                progress.event(&event);
                stop::check()
            },
        )?;
        drop(progress);
        let sparsity = overall_sparsity(self.model, &layers);
        let record = record(&self.identity, sparsity, &layers)?;
        let finished = phase(Phase::Write, || writer.finish(&record))?;
        let ledger = ledger.map(Ledger::close);
        let seconds = (self.started.elapsed() - evaluation).as_secs_f64();
        let pruned = self.measure_at(finished.folder())?;
        let report = self.report(layers, seconds, (dense, pruned));
        if self.context.ranks.rank() == 0 {
            write_html(&report, &record, finished.folder())?;
        }
        finished.publish()?;
        self.tell(&report, ledger.as_ref())
    }

    /// Tells of a run that was finished before.
    fn tell_again(&self, layers: &[Value]) -> Result<()> {
        let output = self.args.output.display();
        let read = |layer| LayerReport::deserialize(layer);
        let layers = layers.iter().map(read).collect::<std::result::Result<Vec<_>, _>>();
        let layers = layers.map_err(|e| Error::Invalid(format!("{output}: its record: {e}")))?;
        note(&format!("{output}: this run was finished before"));
        let measured = (self.measure(self.model)?, self.measure_at(&self.args.output)?);
        self.tell(&self.report(layers, 0.0, measured), None)
    }

    /// A model's perplexity on each text.
    fn measure(&self, model: &Model) -> Result<Vec<f64>> {
        let each = self
            .texts
            .iter()
            .map(|(data, windows)| eval::measure(model, data, windows, self.context));
        each.map(|p| p.map(|p| p.perplexity)).collect()
    }

    fn measure_at(&self, folder: &Path) -> Result<Vec<f64>> {
        if self.texts.is_empty() { Ok(Vec::new()) } else { self.measure(&Model::open(folder)?) }
    }

    fn report(
        &self,
        layers: Vec<LayerReport>,
        seconds: f64,
        (dense, pruned): (Vec<f64>, Vec<f64>),
    ) -> PruneReport {
        let perplexity = self
            .texts
            .iter()
            .zip(dense.into_iter().zip(pruned))
            .map(|((data, windows), (dense, pruned))| PerplexityReport {
                data: data.to_string(),
                dense,
                pruned,
                windows: windows.count(),
                seq_len: windows.seq_len,
            })
            .collect();
        PruneReport {
            model: self.args.model.clone(),
            output: self.args.output.display().to_string(),
            method: self.settings.method.name().into(),
            sparsity: overall_sparsity(self.model, &layers),
            seconds,
            peak_rss_bytes: self.largest(peak_rss_bytes()),
            perplexity,
            layers,
        }
    }

    /// The largest of the ranks' values.
    fn largest(&self, value: u64) -> u64 {
        let ranks = self.context.ranks.each(value as f64);
        ranks.into_iter().fold(0, |largest, value| largest.max(value as u64))
    }

    /// Prints the report.
    fn tell(&self, report: &PruneReport, ledger: Option<&Ledger>) -> Result<()> {
        if let Some(ledger) = ledger {
            note(ledger.to_string().trim_end());
        }
        if self.args.json {
            return match ledger {
                None => print_json(report),
                Some(ledger) => print_json(&with_profile(report, ledger)?),
            };
        }
        print(&format!(
            "{}: {} of {} layers at {:.2} % sparsity by {}, in {:.1} s with {:.2} GB of memory{}\n",
            report.output,
            report.layers.len(),
            self.model.shape().layers,
            100.0 * report.sparsity,
            report.method,
            report.seconds,
            report.peak_rss_bytes as f64 / 1e9,
            match self.context.ranks.size() {
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
}

/// The report's JSON with the ledger's in it.
fn with_profile(report: &PruneReport, ledger: &Ledger) -> Result<Value> {
    let mut json = serde_json::to_value(report)
        .map_err(|e| Error::Invalid(format!("cannot write JSON: {e}")))?;
    json["profile"] = ledger.json();
    Ok(json)
}

/// Adds `report.html` to the finished checkpoint. It says nothing (times, paths)
/// that would differ between two equal runs.
fn write_html(report: &PruneReport, record: &Value, output: &Path) -> Result<()> {
    let measured = |figure: fn(&PerplexityReport) -> f64| {
        let of = |p: &PerplexityReport| Measured {
            data: label(&p.data),
            perplexity: figure(p),
            windows: p.windows,
            seq_len: p.seq_len,
        };
        report.perplexity.iter().map(of).collect()
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let mut settings = BTreeMap::new();
    for (key, value) in record["settings"].as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Object(calibration) => {
                settings.extend(
                    calibration.iter().map(|(key, v)| (format!("calibration {key}"), text(v))),
                );
            }
            _ if key == "method" || key == "pattern" => {}
            value => drop(settings.insert(key.replace('_', "-"), text(value))),
        }
    }
    let (model, pattern) = (label(&report.model), text(&record["settings"]["pattern"]));
    let run = Run {
        model: model.clone(),
        method: report.method.clone(),
        pattern,
        settings,
        sparsity: report.sparsity,
        seconds: None,
        peak_rss_bytes: None,
        perplexity: measured(|p| p.pruned),
        tasks: Vec::new(),
        layers: report.layers.clone(),
    };
    let sweep = Sweep {
        title: format!("{model}, pruned"),
        version: env!("CARGO_PKG_VERSION").into(),
        dense: vec![Dense { model, perplexity: measured(|p| p.dense), tasks: Vec::new() }],
        runs: vec![run],
    };
    report::write(&output.join(REPORT), &report::html(&sweep))
}

/// The method's own settings, with what was asked for in their place.
pub fn settings(args: &args::Prune) -> Settings {
    let (own, recipe) = (Settings::of(args.method), &args.recipe);
    let solver = recipe.solver.unwrap_or(own.solver);
    Settings {
        pattern: args.amount.pattern(),
        layers: args.layers.clone(),
        alpha: args.alpha,
        beta: args.beta,
        epochs: args.epochs.unwrap_or(own.epochs),
        damping: args.damping,
        block_size: args.block_size,
        bits: args.bits,
        true_sequential: args.true_sequential.unwrap_or(own.true_sequential),
        solver,
        // A solver brings the scope it is published with.
        mask_scope: recipe.mask_scope.unwrap_or(solver.scope()),
        refit: recipe.refit.unwrap_or(own.refit),
        allocation: recipe.allocation.unwrap_or(own.allocation),
        sequential_refit: recipe.sequential_refit.unwrap_or(own.sequential_refit),
        target: recipe.target.unwrap_or(own.target),
        neuron_weights: recipe.neuron_weights.unwrap_or(own.neuron_weights),
        state: args.state,
        ..own
    }
}

/// The calibration segments the arguments ask for; none where the method needs
/// none.
pub fn calibration(
    args: &args::Prune,
    settings: &Settings,
    model: &Model,
    context: &Context,
) -> Result<Option<Segments>> {
    if !settings.needs_text() {
        return Ok(None);
    }
    let Some(file) = &args.calibration else {
        return Err(Error::Usage(format!(
            "{} needs calibration text: --calibration wikitext2, ptb, c4 or a file",
            args.method.name()
        )));
    };
    let seq_len = args::seq_len(model, args.seq_len)?;
    let tokenizer = || Tokenizer::of(&model.checkpoint);
    let source = eval::find(file, Use::Calibration, context)?;
    source.segments(args.samples, seq_len, args.seed, tokenizer).map(Some)
}

/// Zeros over all pruned linears.
pub fn overall_sparsity(model: &Model, layers: &[LayerReport]) -> f64 {
    let shapes = model.family.linears();
    let (mut zeros, mut total) = (0.0, 0.0);
    for (name, linear) in layers.iter().flat_map(|l| &l.linears) {
        let size = shapes.iter().find(|(n, _)| n == name).map_or(0, |(_, s)| s[0] * s[1]) as f64;
        zeros += (linear.sparsity * size).round();
        total += size;
    }
    if total > 0.0 { zeros / total } else { 0.0 }
}

/// What `sparsellm.json` says of the run: everything that decided the result,
/// and nothing (times, paths of this machine) that would differ between two
/// equal runs.
fn record(identity: &Value, sparsity: f64, layers: &[LayerReport]) -> Result<Value> {
    let mut layers = serde_json::to_value(layers)
        .map_err(|e| Error::Invalid(format!("cannot write the record: {e}")))?;
    for linear in layers
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(|l| l.get_mut("linears")?.as_object_mut())
        .flat_map(|l| l.values_mut())
        .filter_map(Value::as_object_mut)
    {
        linear.remove("seconds");
    }
    let mut record = identity.clone();
    record["sparsity"] = sparsity.into();
    record["layers"] = layers;
    Ok(record)
}

/// What decides a run's result; the record begins with it.
fn identity(
    args: &args::Prune,
    model: &Model,
    settings: &Settings,
    segments: Option<&Segments>,
) -> Result<Value> {
    let file_name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let calibration = segments.map(|s| {
        json!({
            "file": args.calibration.as_deref().and_then(|f| file_name(Path::new(f))),
            "samples": s.count(),
            "seq_len": s.seq_len,
            "seed": args.seed,
        })
    });
    Ok(json!({
        "sparsellm": env!("CARGO_PKG_VERSION"),
        "input": {
            "architecture": model.architecture,
            "sha256": model.checkpoint.digest()?,
            "config_sha256": model.checkpoint.config_digest(),
            "calibration_sha256": segments.map(Segments::digest),
        },
        "settings": {
            "method": settings.method.name(),
            "pattern": settings.pattern.to_string(),
            "layers": settings.layers.as_ref().map(|r| format!("{}..{}", r.start, r.end)),
            "alpha": settings.alpha.map(decimal),
            "beta": settings.beta.map(decimal),
            "epochs": settings.epochs,
            "damping": decimal(settings.damping),
            "block_size": settings.block_size,
            "bits": settings.bits,
            "true_sequential": settings.true_sequential,
            "solver": settings.solver,
            "mask_scope": settings.mask_scope,
            "refit": settings.refit,
            "allocation": decimal(settings.allocation),
            "sequential_refit": settings.sequential_refit,
            "target": decimal(settings.target),
            "neuron_weights": decimal(settings.neuron_weights),
            "state": settings.state,
            "calibration": calibration,
        },
    }))
}

/// An f32 as it was written: 0.01, not 0.009999999776.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// The process's largest resident memory so far; 0 where the system does not
/// say.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

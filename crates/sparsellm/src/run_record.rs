//! The lasting description of a run: its identity (everything that determines the result), its
//! record in `sparsellm.json`, and its report page.

use crate::inputs::Draw;
use serde::Deserialize;
use serde_json::{Value, json};
use sparsellm_base::{Error, Result};
use sparsellm_checkpoint::{RECORD, finished_record, read_json};
use sparsellm_model::Model;
use sparsellm_prune::{LayerReport, Settings, tune::TuneReport};
use sparsellm_ranks::Communicator;
use sparsellm_report::{Dense, Measured, PerplexityReport, PruneReport, Run, Sweep};
use sparsellm_text::Segments;
use std::{collections::BTreeMap, path::Path};

/// The record that a run leaves in its output folder, `sparsellm.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct RunRecord {
    /// The version of sparsellm that made the run.
    pub sparsellm: String,
    /// The model's architecture, and the digests of the run's inputs.
    pub input: Value,
    /// The settings, including those of the calibration.
    pub settings: Value,
    /// The fraction of zeros over all pruned linears, as written.
    pub sparsity: f64,
    /// The pruned decoder layers, in order.
    pub layers: Vec<LayerReport>,
}

impl RunRecord {
    /// Reads the record of the pruned checkpoint in `folder`.
    ///
    /// # Errors
    /// If the folder has no record, or the record is damaged.
    pub fn read(folder: &Path) -> Result<RunRecord> {
        let path = folder.join(RECORD);
        RunRecord::deserialize(read_json(&path)?)
            .map_err(|e| Error::Input(format!("{}: not a run's record: {e}", path.display())))
    }
}

/// The identity of a run: everything that determines its result, which is the settings and the
/// digests of its inputs. The record begins with the identity.
pub(crate) fn identity(
    model: &Model,
    settings: &Settings,
    segments: Option<&Segments>,
    draw: &Draw,
) -> Result<Value> {
    let file_name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let mut all = settings.to_json();
    all["calibration"] = segments.map_or(Value::Null, |s| {
        json!({
            "file": draw.text.as_deref().and_then(|f| file_name(Path::new(f))),
            "samples": s.count(),
            "seq_len": s.seq_len,
            "seed": draw.seed,
        })
    });
    if let (Some(field), Some(calibration)) = (&draw.text_field, all["calibration"].as_object_mut())
    {
        calibration.insert("text_field".into(), field.as_str().into());
    }
    Ok(json!({
        "sparsellm": env!("CARGO_PKG_VERSION"),
        "input": {
            "architecture": model.architecture,
            "sha256": model.checkpoint.digest()?,
            "config_sha256": model.checkpoint.config_digest(),
            "calibration_sha256": segments.map(Segments::digest),
        },
        "settings": all,
    }))
}

/// The record in `output`, if that is the finished checkpoint of this run already; otherwise null.
/// Rank 0 looks.
pub(crate) fn finished_before(
    output: &Path,
    identity: &Value,
    ranks: &dyn Communicator,
) -> Result<Value> {
    ranks.broadcast_json(|| Ok(finished_record(output, identity).unwrap_or_default()))
}

/// The contents of `sparsellm.json`: the run's identity, its sparsity, its layers, and what tuning
/// did. Times and paths of this machine are left out, because they would differ between two equal
/// runs.
pub(crate) fn record(
    identity: &Value,
    sparsity: f64,
    layers: &[LayerReport],
    tune: Option<&TuneReport>,
) -> Result<Value> {
    let mut layers = serde_json::to_value(layers)
        .map_err(|e| Error::Input(format!("cannot write the record: {e}")))?;
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
    if let Some(tune) = tune {
        record["tune"] = json!(tune);
    }
    Ok(record)
}

/// The fraction of zeros over all linears of `layers`.
pub(crate) fn overall_sparsity(model: &Model, layers: &[LayerReport]) -> Result<f64> {
    let (mut zeros, mut total) = (0.0, 0.0);
    for layer in layers {
        let block = model.outline(layer.index)?;
        let shapes = block.linears();
        for (name, linear) in &layer.linears {
            let shape = shapes.iter().find(|l| l.name == *name).map(|l| &l.weight);
            let size = shape.map_or(0, |w| w.rows * w.cols) as f64;
            zeros += (linear.sparsity * size).round();
            total += size;
        }
    }
    Ok(if total > 0.0 { zeros / total } else { 0.0 })
}

/// The run's report page, as HTML. Times and paths of this machine are left out, because they
/// would differ between two equal runs.
pub(crate) fn page(report: &PruneReport, record: &Value) -> String {
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
            Value::Object(group) => {
                settings.extend(group.iter().map(|(name, v)| (format!("{key} {name}"), text(v))));
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
        tune: report.tune.clone(),
    };
    let sweep = Sweep {
        title: format!("{model}, pruned"),
        version: env!("CARGO_PKG_VERSION").into(),
        dense: vec![Dense { model, perplexity: measured(|p| p.dense), tasks: Vec::new() }],
        runs: vec![run],
    };
    sparsellm_report::html(&sweep)
}

/// The name that a report gives a model or a text. For an existing file or folder, it is the file
/// name without the path (`wikitext2:FILE` keeps its prefix); for anything else, the name as given.
pub fn label(name: &str) -> String {
    let (before, file) = name.split_at(name.rfind(':').map_or(0, |colon| colon + 1));
    match Path::new(file) {
        path if path.exists() => {
            let name = path.file_name().unwrap_or(path.as_os_str());
            format!("{before}{}", name.to_string_lossy())
        }
        _ => name.into(),
    }
}

/// The largest resident memory of this process so far, in bytes; 0 if the system does not say.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

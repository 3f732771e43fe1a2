//! The sentence: load one decoder layer, run it on the calibration hidden
//! states, prune its linears, run it again pruned, write it, next layer.

mod allocation;
mod layer;
mod memory;
mod statistics;

use crate::checkpoint::Writer;
use crate::error::{Error, Result, invalid, usage};
use crate::event::{Event, Observer};
use crate::linalg::Matrix;
use crate::model::{DecoderLayer, Group, Model};
use crate::profile::{Phase, phase};
use crate::prune::sparsellm;
use crate::ranks::Communicator;
use crate::report::LayerReport;
use crate::settings::Settings;
use crate::text::Segments;
use allocation::allocate;
use layer::LayerWork;
use serde::Deserialize;
use serde_json::Value;
use std::{cell::RefCell, ops::Range};

/// What a model is calibrated on, with what the dense model shows on it: many
/// runs on one model may share it.
pub struct Calibration {
    /// The calibration segments.
    pub segments: Segments,
    /// Each layer's share of outliers, once a run has needed it.
    outliers: RefCell<Vec<f64>>,
}

impl Calibration {
    /// Of a model nothing has been asked about yet.
    pub fn new(segments: Segments) -> Self {
        Calibration { segments, outliers: RefCell::default() }
    }
}

/// Tokens that go through a layer together.
const CHUNK: usize = 2048;

/// Prunes `model` on a calibration text, layer by layer, and writes the pruned
/// linears. Each rank works on its part of the text's segments. Magnitude pruning needs no text. Where the run would take more than
/// `memory` bytes, z and s go to a temporary file beside the output. Layers that
/// the writer finds done by an unfinished run are taken from it.
///
/// # Errors
/// Where weights cannot be read or written, or are not finite, where `memory`
/// bytes cannot be enough, or the observer's own.
pub fn prune(
    model: &Model,
    calibration: Option<&Calibration>,
    settings: &Settings,
    memory: Option<usize>,
    writer: &mut Writer,
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<Vec<LayerReport>> {
    settings.check(model)?;
    let size = calibration.map_or((0, 1), |c| {
        let seq_len = c.segments.seq_len;
        (c.segments.largest_share(ranks, together(seq_len)), seq_len)
    });
    let (storage, needed) = memory::storage(model, settings, size, memory, writer.folder())?;
    observe(Event::Memory { needed, spilled: storage.spill.is_some() })?;
    let range = settings.layers.clone().unwrap_or(0..model.shape().layers);
    let (mut hidden, seq_len) = match calibration {
        _ if !settings.needs_text() => (Matrix::zeros(0, model.shape().hidden), 1),
        Some(Calibration { segments, .. }) => (
            model.embed(segments.share(ranks, together(segments.seq_len)), segments.seq_len)?,
            segments.seq_len,
        ),
        None => return usage!("{} needs calibration text", settings.method.name()),
    };
    // The dense model's hidden states, where targets lean on them.
    let mut dense = (settings.target > 0.0).then(|| hidden.clone());
    let patterns = match calibration {
        Some(calibration) => {
            allocate(model, calibration, &hidden, settings, &range, ranks, observe)?
        }
        None => vec![settings.pattern; range.len()],
    };
    let mut reports = done_before(writer, &range)?;
    let resumed = range.start + reports.len();
    if !reports.is_empty() {
        observe(Event::Resumed { done: reports.len(), of: range.len() })?;
    }
    for index in 0..range.end {
        let mut layer = phase(Phase::Read, || model.layer(index))?;
        if let Some(dense) = &mut dense {
            run(&layer, dense, seq_len);
        }
        let prefix = model.family.layer_prefix(index);
        if (range.start..resumed).contains(&index) {
            for group in Group::ALL {
                for linear in layer.linears_mut(group) {
                    let name = stored(&prefix, linear.name);
                    linear.weight.data = phase(Phase::Read, || writer.read(&name))?;
                    linear.pack();
                }
            }
        }
        if index < resumed {
            if index + 1 < range.end {
                run(&layer, &mut hidden, seq_len);
            }
            continue;
        }
        observe(Event::Layer { index, done: reports.len(), of: range.len() })?;
        if settings.method.is_global() {
            sparsellm::check(&layer.ffn)?;
        }
        let pattern = patterns[index - range.start];
        let settings = &Settings { pattern, ..settings.clone() };
        let storage = &storage;
        let mut work =
            LayerWork { model, settings, index, prefix, layer, seq_len, storage, ranks, observe };
        let report = work.prune(&hidden, dense.as_ref())?;
        for linear in work.layer.all_linears() {
            let name = stored(&work.prefix, linear.name);
            phase(Phase::Write, || writer.write(&name, &linear.weight.data))?;
        }
        let record = serde_json::to_value(&report)
            .map_err(|e| Error::Invalid(format!("cannot record layer {index}: {e}")))?;
        phase(Phase::Write, || writer.layer_done(record))?;
        if index + 1 < range.end {
            run(&work.layer, &mut hidden, seq_len);
        }
        observe(Event::LayerDone { report: &report })?;
        reports.push(report);
    }
    Ok(reports)
}

/// The name that the weights of a layer's linear have in the checkpoint.
fn stored(prefix: &str, linear: &str) -> String {
    format!("{prefix}{linear}.weight")
}

/// The reports of the layers that an unfinished run has done, `range`'s first.
fn done_before(writer: &Writer, range: &Range<usize>) -> Result<Vec<LayerReport>> {
    let read = |(index, value): (usize, &Value)| match LayerReport::deserialize(value) {
        Ok(report) if report.index == index => Ok(report),
        _ => invalid!(
            "{}: the record of an unfinished run is damaged; discard it with --force",
            writer.folder().display()
        ),
    };
    range.clone().zip(writer.done()).map(read).collect()
}

/// Takes hidden states through a layer.
pub(crate) fn run(layer: &DecoderLayer, hidden: &mut Matrix, seq_len: usize) {
    phase(Phase::Forward, || {
        for_each_chunk(hidden, seq_len, |h| layer.forward(h, seq_len, |_, _| {}));
    });
}

/// How many segments go through a layer together: about [`CHUNK`] tokens. Sums over
/// tokens add up what each of these gives, so that no rank has a part of one.
fn together(seq_len: usize) -> usize {
    (CHUNK / seq_len.max(1)).max(1)
}

/// Values of `hidden` in as many segments.
fn chunk_values(hidden: &Matrix, seq_len: usize) -> usize {
    (together(seq_len) * seq_len * hidden.cols).max(1)
}

/// Copies of whole segments of `hidden`, a few at a time.
fn chunks(hidden: &Matrix, seq_len: usize) -> impl Iterator<Item = Matrix> {
    let cols = hidden.cols;
    let parts = hidden.data.chunks(chunk_values(hidden, seq_len));
    parts.map(move |part| Matrix::new(part.len() / cols, cols, part.to_vec()))
}

/// Runs `f` on whole segments of `hidden`, a few at a time, and keeps what it
/// makes of them.
fn for_each_chunk(hidden: &mut Matrix, seq_len: usize, mut f: impl FnMut(&mut Matrix)) {
    let (cols, values) = (hidden.cols, chunk_values(hidden, seq_len));
    for part in hidden.data.chunks_mut(values) {
        let mut chunk = Matrix::new(part.len() / cols, cols, part.to_vec());
        f(&mut chunk);
        part.copy_from_slice(&chunk.data);
    }
}

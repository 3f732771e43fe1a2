//! The main loop: load one decoder layer, run it on the calibration hidden states,
//! prune its linears, run it again pruned, write it, next layer.

use super::{
    allocation::allocate,
    calibration::Calibration,
    layer::{DenseStates, LayerWork},
    memory,
    plan::Plan,
};
use crate::{LayerReport, Output, layer_sparsity, validate};
use serde::Deserialize;
use serde_json::Value;
use sparsellm_base::{Error, Event, Observer, Result, input_error, usage_error};
use sparsellm_model::{Block, VectorParameter, segments_per_chunk};
use sparsellm_tensor::Matrix;
use sparsellm_tensor::profile::{Phase, phase};
use std::ops::Range;

/// Prunes a model layer by layer, and writes the pruned linears to `output`. Layers that an
/// unfinished run has already pruned are read back from there.
///
/// # Errors
/// If weights cannot be read or written or are not finite, if the run would need more memory
/// than allowed, or if the observer returns an error.
pub fn prune_model(
    plan: &Plan,
    output: &mut Output,
    observe: &mut Observer,
) -> Result<Vec<LayerReport>> {
    let Plan { model, method, settings, .. } = *plan;
    validate(settings, method, model)?;
    let (streaming, needed) = memory::streaming(plan, output.folder())?;
    observe.notify(Event::Memory { needed, spilled: streaming.spill.is_some() })?;
    let range = settings.layers.clone().unwrap_or(0..model.shape().layers);
    let (mut hidden, seq_len) = embed(plan)?;
    // The dense model's hidden states, if targets lean on them.
    let mut dense = (settings.target > 0.0).then(|| hidden.clone());
    let mut reports = done_before(output, &range)?;
    let resumed = range.start + reports.len();
    if !reports.is_empty() {
        observe.notify(Event::Resumed { done: reports.len(), of: range.len() })?;
    }
    let shares = match resumed < range.end {
        true => allocate(plan, &hidden, &range, output.run_folder(), observe)?,
        false => Vec::new(), // no layer is left to prune
    };
    let mut warned = settings.keep_zeros;
    for index in 0..range.end {
        let mut block = phase(Phase::Read, || model.block(index))?;
        if range.contains(&index) && !warned {
            warned = warn_of_zeros(&block, index, observe)?;
        }
        let before = dense.as_ref().filter(|_| settings.tune.blocks()).cloned();
        if let Some(dense) = &mut dense {
            block.run(dense, seq_len);
        }
        if index < resumed {
            if range.contains(&index) {
                read_back(plan, &mut block, output)?;
            }
            if index + 1 < range.end {
                block.run(&mut hidden, seq_len);
            }
            continue;
        }
        observe.notify(Event::LayerStarted { index, done: reports.len(), of: range.len() })?;
        let (streaming, shares) = (&streaming, &shares[index - range.start]);
        let mut work = LayerWork { plan: *plan, index, block, seq_len, shares, streaming };
        let dense = dense.as_ref().map(|after| DenseStates { before: before.as_ref(), after });
        let report = work.prune(&hidden, dense, observe)?;
        write(plan, &mut work.block, &report, output)?;
        if index + 1 < range.end {
            work.block.run(&mut hidden, seq_len);
        }
        observe.notify(Event::LayerDone { index, kept_epoch: report.kept_epoch })?;
        reports.push(report);
    }
    Ok(reports)
}

/// Warns if many weights of a layer that was just read are zero, and says whether it did. Zeros
/// that someone put there on purpose should not be filled unnoticed. Each layer is examined as it
/// is read, so that nothing is read twice, and the first such layer is reported at once.
fn warn_of_zeros(block: &Block, index: usize, observe: &mut Observer) -> Result<bool> {
    const MANY: f64 = 0.05;
    let share = layer_sparsity(block);
    if share > MANY {
        observe.notify(Event::Warning(format!(
            "layer {index}: {:.1} % of its weights are zero already, and pruning may give them other values; `keep_zeros` keeps every zero",
            100.0 * share
        )))?;
    }
    Ok(share > MANY)
}

/// This rank's hidden states before the first layer, and the length of the segments.
fn embed(plan: &Plan) -> Result<(Matrix, usize)> {
    if !plan.needs_text() {
        return Ok((Matrix::zeros(0, plan.model.shape().hidden), 1));
    }
    let Some(Calibration { segments, .. }) = plan.calibration else {
        return usage_error!("{} needs `calibration` text", plan.method.name());
    };
    let seq_len = segments.seq_len;
    let piece = segments_per_chunk(seq_len) * seq_len;
    let own = plan.ranks.share_in_pieces(segments.tokens.len(), piece);
    Ok((plan.model.embed(&segments.tokens[own], seq_len)?, seq_len))
}

/// Reads a finished layer's parameters back from the output.
pub fn read_back(plan: &Plan, block: &mut Block, output: &mut Output) -> Result<()> {
    for linear in block.linears_mut() {
        let values = phase(Phase::Read, || output.read(&linear.slot))?;
        linear.weight.edit().data = values;
    }
    for mut vector in moved_vectors(plan, block) {
        vector.set_stored(phase(Phase::Read, || output.read(&vector.slot))?);
    }
    Ok(())
}

/// The parameters of a pruned layer, beside its weights, that pruning has changed.
fn moved_vectors<'b>(plan: &Plan, block: &'b mut Block) -> Vec<VectorParameter<'b>> {
    if plan.settings.tune.blocks() { block.vectors_mut() } else { Vec::new() }
}

/// Writes a pruned layer's weights and then its record, so that a record implies the weights.
fn write(plan: &Plan, block: &mut Block, report: &LayerReport, output: &mut Output) -> Result<()> {
    phase(Phase::Write, || output.write_linears(block))?;
    phase(Phase::Write, || output.write_vectors(&moved_vectors(plan, block)))?;
    let record = serde_json::to_value(report)
        .map_err(|e| Error::Input(format!("cannot record layer {}: {e}", report.index)))?;
    phase(Phase::Write, || output.layer_done(record))
}

/// The reports of the layers that an unfinished run has pruned, in the order of `range`.
fn done_before(output: &Output, range: &Range<usize>) -> Result<Vec<LayerReport>> {
    let read = |(index, value): (usize, &Value)| match LayerReport::deserialize(value) {
        Ok(report) if report.index == index => Ok(report),
        _ => input_error!(
            "{}: the record of an unfinished run is damaged; discard it with `force`",
            output.folder().display()
        ),
    };
    range.clone().zip(output.done()).map(read).collect()
}

//! Tuning after the last layer: through the whole model.

use super::{Plan, memory, run::read_back};
use crate::{
    Output,
    tune::{TunePlan, TuneReport, tune_model},
};
use sparsellm_base::{Observer, Result};
use sparsellm_tensor::profile::{Phase, phase};

/// Tunes the layers that [`prune_model`](super::prune_model) has written to `output`, if the
/// settings ask for it.
///
/// # Errors
/// Those of [`tune_model`].
pub fn tune_pruned(
    plan: &Plan,
    output: &mut Output,
    observe: &mut Observer,
) -> Result<Option<TuneReport>> {
    let (model, settings) = (plan.model, plan.settings);
    let Some(calibration) = plan.calibration.filter(|_| settings.tune.model()) else {
        return Ok(None);
    };
    let all = 0..model.shape().layers;
    let range = settings.layers.clone().unwrap_or(all.clone());
    let done = output.done().get(range.len()..).and_then(<[_]>::last).cloned();
    let blocks = all
        .map(|index| {
            let mut block = model.block(index)?;
            if range.contains(&index) {
                read_back(plan, &mut block, output)?;
            }
            Ok(block)
        })
        .collect::<Result<_>>()?;
    let segments = &calibration.segments;
    let (streaming, _) = memory::streaming(plan, output.folder())?;
    let tune = TunePlan {
        pruned: model,
        dense: model,
        segments,
        more: &calibration.more,
        settings: &settings.tuning,
        keep: streaming.keep(settings.state),
        ranks: plan.ranks,
    };
    phase(Phase::Tune, || tune_model(&tune, blocks, done, output, observe)).map(Some)
}

//! Checks settings before a run.

use crate::{Method, Pattern, Scope, Settings, Solver};
use sparsellm_base::{Error, Result, usage_error};
use sparsellm_model::Model;

/// Checks, before any work, that a run of `method` on `model` can honour the settings.
///
/// # Errors
/// If it cannot honour one of them; the message names the setting's field.
pub fn validate(settings: &Settings, method: &dyn Method, model: &Model) -> Result<()> {
    let layers = model.shape().layers;
    if let Some(range) = &settings.layers
        && (range.is_empty() || range.end > layers)
    {
        return usage_error!(
            "`layers` {}..{}: the model has decoder layers 0..{layers}",
            range.start,
            range.end
        );
    }
    numbers(settings)?;
    settings.tuning.validate()?;
    combinations(settings, method)?;
    let first = settings.layers.as_ref().map_or(0, |range| range.start);
    // Opening the model has checked the shapes of all tensors against the configuration, so
    // every layer has the widths of this one.
    for linear in model.outline(first)?.linears() {
        settings.pattern.check_width(linear.weight.cols, &linear.name)?;
    }
    Ok(())
}

/// Checks that every number is within its bounds.
fn numbers(settings: &Settings) -> Result<()> {
    let positive = |name: &str, value: f32| match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => usage_error!("`{name}` must be a positive number, not {value}"),
    };
    positive("alpha", settings.alpha.unwrap_or(1.0))?;
    positive("beta", settings.beta.unwrap_or(1.0))?;
    if !(settings.damping.is_finite() && settings.damping >= 0.0) {
        return usage_error!("`damping` must be a number of at least 0, not {}", settings.damping);
    }
    if settings.epochs == 0 || settings.block_size == 0 {
        return usage_error!("`epochs` and `block_size` must be at least 1");
    }
    if settings.bits.is_some_and(|b| !(2..=16).contains(&b)) {
        return usage_error!("`bits` must be from 2 to 16");
    }
    settings.allocation.checked().map_err(Error::Usage)?;
    if !(0.0..=1.0).contains(&settings.target) {
        return usage_error!(
            "`target` must be layer (0), dense (1) or between, not {}",
            settings.target
        );
    }
    if !(0.0..=1.0).contains(&settings.neuron_weights) {
        return usage_error!(
            "`neuron_weights` must be from 0 to 1, not {}",
            settings.neuron_weights
        );
    }
    Ok(())
}

/// Checks that no settings contradict each other.
fn combinations(settings: &Settings, method: &dyn Method) -> Result<()> {
    let admm = settings.solver == Solver::Admm;
    if settings.bits.is_some() && (!method.moves_weights() || admm || settings.refit > 0) {
        return usage_error!(
            "`bits` rounds weights within the OBS sweep: use `method` sparsegpt or sparsellm, or add `solver` obs `refit` 0"
        );
    }
    if admm && settings.mask_scope == Scope::Block {
        return usage_error!(
            "`mask_scope` block belongs to the OBS sweep; with `solver` admm, choose row or matrix"
        );
    }
    if !method.runs_sparsellm()
        && (settings.sequential_refit || settings.target > 0.0 || settings.neuron_weights > 0.0)
    {
        return usage_error!(
            "`sequential_refit`, `target` and `neuron_weights` belong to SparseLLM: use `method` sparsellm or sparsellm-plus, not {}",
            method.name()
        );
    }
    if let Pattern::NofM { of, .. } = settings.pattern
        && !settings.block_size.is_multiple_of(of)
    {
        return usage_error!(
            "`block_size` {} is not a multiple of the pattern's M = {of}",
            settings.block_size
        );
    }
    Ok(())
}

//! Allocates a sparsity to each linear by what pruning it costs in the model's loss.
//!
//! To second order, and with the Fisher information of a linear's outputs reduced to its diagonal,
//! a change ΔW of its weights moves the model away from what it said by
//!
//! ```text
//! KL ≈ ½ Σ_o E[g_o²] · (ΔW H ΔWᵀ)_oo,   H = E[x xᵀ]
//! ```
//!
//! per token, where g is the gradient of `−ln p(y)`, y drawn from p, with respect to the linear's
//! outputs. ΔW is that of a trial prune by the OBS solver at a few sparsities.

use super::{
    super::{layer::not_finite, plan::Plan},
    fisher::{Importance, importance},
    knapsack::{Item, solve},
};
use crate::{
    Gram, Pattern, Problem, Settings, Share, Solver,
    rows::{Keep, Rows, StateType},
};
use sparsellm_base::{Event, Observer, Result, numerics_error};
use sparsellm_model::{Block, Positions, for_each_chunk};
use sparsellm_ranks::Local;
use sparsellm_tensor::profile::{Phase, phase};
use sparsellm_tensor::{Matrix, View, matmul};
use sparsellm_text::Segments;
use std::{ops::Range, path::Path};

/// The tokens, about, that are enough to tell the linears apart.
const TOKENS: usize = 8192;

/// Each linear keeps at least this fraction of the weights that it would keep at uniform sparsity,
/// and loses at least this fraction of those that it would lose.
const LEAST: f64 = 0.5;

/// The number of tokens of the first segments, on which costs are measured.
pub fn measured_tokens(segments: &Segments) -> usize {
    TOKENS.div_ceil(segments.seq_len).min(segments.count()) * segments.seq_len
}

/// What is asked of each linear of the layers in `range`, which lose a share `rho` of their weights
/// together: its sparsity, and the weights of its rows' errors. Every rank does the same work, on the same first
/// segments; the inputs of the layers are kept in temporary files in `folder`.
///
/// # Errors
/// If weights cannot be read, inputs or gradients are not finite, a temporary file cannot be written,
/// or the observer returns an error.
pub fn shares(
    plan: &Plan,
    segments: &Segments,
    range: &Range<usize>,
    rho: f64,
    folder: &Path,
    observe: &mut Observer,
) -> Result<Vec<Vec<Share>>> {
    let trials = [LEAST * rho, rho, 1.0 - LEAST * (1.0 - rho)];
    let seq_len = segments.seq_len;
    let tokens = &segments.tokens[..measured_tokens(segments)];
    let mut hidden = plan.model.embed(tokens, seq_len)?;
    let layers = plan.model.shape().layers;
    let (mut inputs, mut errors) = (Vec::new(), Vec::new());
    for index in 0..layers {
        let block = plan.model.block(index)?;
        if index >= range.start {
            let keep = Keep { state: StateType::F32, spill: Some(folder) };
            let mut rows = Rows::new(hidden.rows, hidden.cols, keep)?;
            rows.write(0..hidden.rows, &hidden.data)?;
            inputs.push(rows);
        }
        if range.contains(&index) {
            errors.push(trial_errors(plan, (index, &block), &mut hidden, seq_len, &trials)?);
        } else {
            phase(Phase::Forward, || block.run(&mut hidden, seq_len));
        }
        let of = 2 * layers - range.start;
        observe.notify(Event::Measured { what: "importance", done: index + 1, of })?;
    }
    let importance = phase(Phase::Forward, || {
        importance(plan, (&mut inputs, &hidden), seq_len, range, observe)
    })?;
    budget(plan, range, &errors, &importance, (&trials, rho))
}

/// The errors `(ΔW H ΔWᵀ)_oo` of a linear's rows, at each trial's sparsity.
type Errors = Vec<Vec<f64>>;

/// The errors of a layer's linears. Runs the layer on `hidden`.
fn trial_errors(
    plan: &Plan,
    (index, block): (usize, &Block),
    hidden: &mut Matrix,
    seq_len: usize,
    trials: &[f64],
) -> Result<Vec<Errors>> {
    let groups = block.groups();
    let mut grams: Vec<Gram> =
        groups.iter().map(|group| Gram::new(block.input_width(group))).collect();
    phase(Phase::Forward, || {
        for_each_chunk(hidden, seq_len, |h| {
            block.forward(h, Positions::segments(seq_len), None, |group, x| grams[group].add(x));
        });
    });
    let linears = block.linears();
    let mut all = vec![Errors::new(); linears.len()];
    let settings = Settings {
        solver: Solver::Obs,
        mask_scope: Solver::Obs.scope(),
        bits: None,
        refit: 0,
        ..plan.settings.clone()
    };
    for (group, gram) in groups.iter().zip(&grams) {
        let Some(problem) = Problem::new(gram, &settings, &Local) else {
            let name = group.linears.first().map_or("", |i| linears[*i].name.as_str());
            return not_finite(index, &format!("the inputs of {name}"));
        };
        let h = gram.scaled(1.0 / gram.tokens.max(1) as f32);
        for &i in &group.linears {
            let dense = linears[i].weight.view();
            for &rho in trials {
                let mut w = dense.to_matrix();
                let pattern = Pattern::Unstructured(rho);
                let share = Share { pattern, row_weights: None };
                problem.prune(&mut w, &share.selection(&settings, &Local));
                all[i].push(phase(Phase::Solve, || row_errors(w, dense, &h)));
            }
        }
    }
    Ok(all)
}

/// `(ΔW H ΔWᵀ)_oo` for each row o.
fn row_errors(pruned: Matrix, dense: View, h: &Matrix) -> Vec<f64> {
    let mut delta = pruned;
    delta.data.iter_mut().zip(dense.data).for_each(|(a, b)| *a -= b);
    let products = matmul(delta.view(), h.view());
    let cols = delta.cols.max(1);
    let rows = delta.data.chunks_exact(cols).zip(products.data.chunks_exact(cols));
    rows.map(|(d, p)| d.iter().zip(p).map(|(d, p)| f64::from(d * p)).sum::<f64>().max(0.0))
        .collect()
}

/// Shares the sparsity ρ so that what all linears cost together is least.
fn budget(
    plan: &Plan,
    range: &Range<usize>,
    errors: &[Vec<Errors>],
    importance: &[Importance],
    (trials, rho): (&[f64], f64),
) -> Result<Vec<Vec<Share>>> {
    let mut items = Vec::new();
    for (index, (errors, importance)) in range.clone().zip(errors.iter().zip(importance)) {
        for (linear, (errors, importance)) in
            plan.model.outline(index)?.linears().iter().zip(errors.iter().zip(importance))
        {
            let cost = |errors: &Vec<f64>| {
                errors.iter().zip(importance).map(|(e, g)| 0.5 * e * g).sum::<f64>()
            };
            let costs: Vec<f64> = errors.iter().map(cost).collect();
            if !costs.iter().all(|cost| cost.is_finite()) {
                return numerics_error!(
                    "layer {index}: the gradient of {} is not finite on the calibration text; check the checkpoint with `sparsellm eval`, or share the sparsity without it (`allocation` uniform)",
                    linear.name
                );
            }
            // A linear that costs nothing has a logarithm all the same.
            let log_costs = costs.iter().map(|cost| cost.max(1e-30).ln()).collect();
            let weights = (linear.weight.rows * linear.weight.cols) as f64;
            items.push(Item { weights, log_costs });
        }
    }
    let mut sparsities = solve(&items, trials, rho).into_iter();
    let mut share = |importance: &Vec<f64>| Share {
        pattern: Pattern::Unstructured(sparsities.next().unwrap_or(rho)),
        row_weights: row_weights(importance),
    };
    Ok(importance.iter().map(|layer| layer.iter().map(&mut share).collect()).collect())
}

/// `√(E[g_o²] / mean)`: scores are like lengths, and errors like their squares. `None` if no output
/// matters.
fn row_weights(importance: &[f64]) -> Option<Vec<f32>> {
    let mean = importance.iter().sum::<f64>() / importance.len().max(1) as f64;
    (mean > 0.0).then(|| importance.iter().map(|g| (g / mean).sqrt() as f32).collect())
}

//! SparseLLM (Bai et al., *SparseLLM: Towards Global Pruning of Pre-trained
//! Language Models*, NeurIPS 2024): the linears of a feed-forward network
//! pruned together, against the dense network's output.
//!
//! With auxiliary z (s) for the first linears' outputs and a for the last
//! linear's input, it alternates closed-form updates on
//!
//! ```text
//! min  α‖Y − b₂ − a W₂ᵀ‖² + β‖a − φ(z)‖² + α‖z − b₁ − X W₁ᵀ‖²     (W₁, W₂ sparse)
//! ```
//!
//! where φ is relu(z) for OPT and silu(s)⊙z for LLaMA, whose gate adds a third
//! term `α‖s − X W_gateᵀ‖²`. This file is the loop; `relu.rs` and `swiglu.rs`
//! are the two sets of updates for φ, z and s.
//!
//! As published, W₂ is fitted to the auxiliary a. With the sequential refit it is
//! fitted to the activations that the pruned W₁ really gives; the target Y may
//! lean towards a reference, and the masks of W₁ may weigh neurons by their
//! worth (docs/results.md).
//!
//! Tokens are streamed in chunks: every sum the weights need is a sum over
//! tokens, so only z (and s) persist between epochs, and a never does. Each rank
//! has the X, Y, z (and s) of its own tokens.

pub mod memory;
mod passes;
mod relu;
mod state;
mod swiglu;

pub use relu::Relu;
pub use state::{StateType, Storage};
pub use swiglu::SwiGlu;

use super::{
    Pattern,
    solver::{Options, Problem},
};
use crate::error::{Result, invalid};
use crate::linalg::{CholeskyFactor, Matrix, rows_of};
use crate::model::{Activation, FeedForward, Linear};
use crate::profile::{Phase, phase};
use crate::ranks::Communicator;
use passes::{Pass, Start, a_solver};
use state::State;

/// Relative damping λ/mean(diag G) of the least-squares problems.
const LEAST_SQUARES_DAMPING: f32 = 1e-4;

/// The settings of the global method.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which weights go.
    pub pattern: Pattern,
    /// How each linear is pruned.
    pub solver: Options,
    /// Solve the last linear again on the activations that the pruned first
    /// linears really produce.
    pub sequential_refit: bool,
    /// How far the target moves from this layer's dense output to the
    /// reference, from 0 to 1.
    pub target: f32,
    /// How much what a neuron is worth to the network's output weighs in the
    /// first linears' masks: the exponent of its worth. 0: not at all.
    pub neuron_weights: f32,
    /// Penalty α of the linear constraints.
    pub alpha: f32,
    /// Penalty β of the activation constraint.
    pub beta: f32,
    /// Epochs of the alternating loop.
    pub epochs: usize,
    /// Tokens per chunk.
    pub chunk: usize,
    /// How z (and s) are kept.
    pub storage: Storage,
}

impl Default for Settings {
    /// As published, at 70 %, with SwiGLU's penalties.
    fn default() -> Self {
        Settings {
            pattern: Pattern::Unstructured(0.7),
            solver: Options::default(),
            sequential_refit: false,
            target: 0.0,
            neuron_weights: 0.0,
            alpha: 5.0,
            beta: 5.0,
            epochs: 4,
            chunk: 2048,
            storage: Storage::default(),
        }
    }
}

/// How a feed-forward network fared.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The true error `E = ‖Y − FFN_sparse(X)‖²/‖Y‖²` after each epoch's prune.
    pub errors: Vec<f64>,
    /// The epoch whose weights were kept, counted from 1.
    pub kept_epoch: usize,
    /// The largest relative damping that the Hessians of the first linears and of
    /// the last needed.
    pub damping: [f32; 2],
    /// What was not as asked for, in words.
    pub warnings: Vec<String>,
}

/// What differs between the two kinds of network: φ, and the updates of its
/// arguments. Slices hold one token's d_ff elements; `pre` and `state` hold its z
/// (ReLU), or its z and then its s (SwiGLU).
pub trait Updates: Sync {
    /// `φ(z[, s])`, into `a`.
    fn phi(&self, pre: &[f32], a: &mut [f32]);

    /// The derivatives of φ by z (and s), at `pre`.
    fn slopes(&self, pre: &[f32], slopes: &mut [f32]);

    /// Moves z (and s) to lower the objective, given `a` and the first linears'
    /// outputs `pre` (m, and g).
    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]);
}

/// Fails on a network the method has no updates for.
pub fn check(ffn: &FeedForward) -> Result<()> {
    match ffn {
        FeedForward::Mlp { activation: Activation::Gelu, .. } => invalid!(
            "sparsellm needs a ReLU or SwiGLU feed-forward network, and this model's is gelu; use --method sparsegpt"
        ),
        FeedForward::Mlp { activation: Activation::Relu, .. } | FeedForward::SwiGlu { .. } => {
            Ok(())
        }
    }
}

/// Prunes a feed-forward network in place on this rank's calibration inputs
/// `x: [tokens, d]`; `observe` is told each epoch (from 1) and its error,
/// and ends the run with an error of its own. The target leans on
/// `reference: [tokens, d]`, biases included, where there is one.
///
/// # Errors
/// Where the network's activation is neither ReLU nor SwiGLU, or the inputs are
/// not finite.
pub fn prune(
    ffn: &mut FeedForward,
    x: &Matrix,
    reference: Option<Matrix>,
    settings: &Settings,
    ranks: &dyn Communicator,
    observe: impl FnMut(usize, f64) -> Result<()>,
) -> Result<Outcome> {
    check(ffn)?;
    let (alpha, beta) = (settings.alpha, settings.beta);
    match ffn {
        FeedForward::Mlp { fc1, fc2, .. } => {
            let updates = Relu { alpha, beta };
            alternate(&updates, &mut [fc1], fc2, x, reference, settings, ranks, observe)
        }
        FeedForward::SwiGlu { gate, up, down } => {
            let updates = SwiGlu { alpha, beta };
            alternate(&updates, &mut [up, gate], down, x, reference, settings, ranks, observe)
        }
    }
}

/// The alternating loop.
#[allow(clippy::too_many_arguments)]
fn alternate(
    updates: &impl Updates,
    first: &mut [&mut Linear],
    last: &mut Linear,
    x: &Matrix,
    reference: Option<Matrix>,
    settings: &Settings,
    ranks: &dyn Communicator,
    mut observe: impl FnMut(usize, f64) -> Result<()>,
) -> Result<Outcome> {
    let not_finite = "the calibration activations are not finite or all zero";
    let start =
        phase(Phase::Forward, || Start::new(updates, first, last, x, reference, settings, ranks))?;
    let Start { mut state, target, norm, xx, mut sums, neuron_weights } = start;
    // X does not change: one factor serves every first linear and every epoch.
    let Some(problem_x) = Problem::new(&xx, settings.solver, ranks) else {
        return invalid!("sparsellm: {not_finite}");
    };
    let least_squares_x = (settings.epochs > 1)
        .then(|| CholeskyFactor::of_gram(&xx, LEAST_SQUARES_DAMPING, ranks))
        .flatten();
    drop(xx);
    let mut trouble = Trouble::new(settings.solver.damping);
    trouble.hessian(FIRST, &problem_x);
    let dense_last = settings.sequential_refit.then(|| last.weight.clone());
    // This rank's rows of the last linear.
    let own = rows_of(ranks, last.weight.rows);
    let mut errors = Vec::new();
    let mut best: Option<(usize, f64, Vec<Matrix>, Matrix)> = None;
    for epoch in 1..=settings.epochs.max(1) {
        if epoch > 1 {
            // W̄₁ = (z − b₁)ᵀX (XᵀX + λI)⁻¹
            let Some(factor_x) = &least_squares_x else {
                trouble.stopped(epoch);
                break;
            };
            trouble.least_squares(FIRST, factor_x);
            let rows = rows_of(ranks, last.weight.cols);
            for (i, linear) in first.iter_mut().enumerate() {
                let at = i * last.weight.cols;
                let zx = sums.zx.rows(at + rows.start..at + rows.end);
                let solved = phase(Phase::Weights, || factor_x.solve_rows(zx.view()));
                linear.weight.set_rows(rows.start, &solved);
            }
        }
        for (linear, weights) in first.iter_mut().zip(&neuron_weights) {
            problem_x.prune(&mut linear.weight, settings.pattern, weights.as_deref());
            linear.pack();
        }
        if settings.sequential_refit {
            let pass = Pass { updates, first, last, x, target: &target, settings };
            phase(Phase::Forward, || pass.activations(&mut sums, ranks));
        } else if epoch > 1 {
            // W̄₂ = (T − b₂)ᵀa (aᵀa + λI)⁻¹
            let factor_a = CholeskyFactor::of_gram(&sums.aa, LEAST_SQUARES_DAMPING, ranks);
            let Some(factor_a) = factor_a else {
                trouble.stopped(epoch);
                break;
            };
            trouble.least_squares(LAST, &factor_a);
            let solved =
                phase(Phase::Weights, || factor_a.solve_rows(sums.ta.rows(own.clone()).view()));
            last.weight.set_rows(own.start, &solved);
        }
        let Some(problem_a) = Problem::new(&sums.aa, settings.solver, ranks) else {
            trouble.stopped(epoch);
            break;
        };
        trouble.hessian(LAST, &problem_a);
        if let Some(dense) = &dense_last {
            // W̄₂ likewise, a being what the pruned first linears really give.
            let (ta, dense) = (sums.ta.rows(own.clone()), dense.rows(own.clone()));
            let solve = || problem_a.factor.least_squares(ta.view(), sums.aa.tokens, dense);
            last.weight.set_rows(own.start, &phase(Phase::Weights, solve));
        }
        problem_a.prune(&mut last.weight, settings.pattern, None);
        last.pack();
        drop(problem_a);
        let finite = |w: &Matrix| w.data.iter().all(|v| v.is_finite());
        if !(finite(&last.weight) && first.iter().all(|l| finite(&l.weight))) {
            trouble.stopped(epoch);
            break;
        }
        let pass = Pass { updates, first, last, x, target: &target, settings };
        let ratio = settings.beta / settings.alpha;
        let solver = match epoch < settings.epochs {
            true => phase(Phase::A, || a_solver(&last.weight, ratio, ranks)),
            false => None,
        };
        let error = phase(Phase::Forward, || match &solver {
            Some(solver) => pass.update(&mut state, &mut sums, solver, ranks),
            None => Ok(pass.error(ranks)),
        })? / norm;
        errors.push(error);
        observe(epoch, error)?;
        // The guard: the layer ends with its best iterate.
        if error.is_finite() && best.as_ref().is_none_or(|(_, lowest, ..)| error < *lowest) {
            let weights = first.iter().map(|l| l.weight.clone()).collect();
            best = Some((epoch, error, weights, last.weight.clone()));
        }
        if solver.is_none() {
            if epoch < settings.epochs {
                trouble.stopped(epoch + 1);
            }
            break;
        }
    }
    let Some((kept_epoch, _, weights, last_weight)) = best else {
        return invalid!("sparsellm: {not_finite}");
    };
    for (linear, weight) in first.iter_mut().zip(weights) {
        linear.weight = weight;
        linear.pack();
    }
    last.weight = last_weight;
    last.pack();
    Ok(Outcome { errors, kept_epoch, damping: trouble.damping, warnings: trouble.warnings })
}

/// What was not as asked for with a network's Hessians.
struct Trouble {
    asked: f32,
    /// The largest damping of [`FIRST`] and [`LAST`].
    damping: [f32; 2],
    warnings: Vec<String>,
}

/// The first linears, whose input is X.
const FIRST: usize = 0;
/// The last one, whose input is a.
const LAST: usize = 1;

impl Trouble {
    fn new(asked: f32) -> Self {
        Trouble { asked, damping: [asked; 2], warnings: Vec::new() }
    }

    fn hessian(&mut self, which: usize, problem: &Problem) {
        let used = problem.factor.damping;
        self.damping[which] = self.damping[which].max(used);
        self.raised(["X", "a"][which], self.asked, used);
    }

    fn least_squares(&mut self, which: usize, factor: &CholeskyFactor) {
        let what = ["X's least squares", "a's least squares"][which];
        self.raised(what, LEAST_SQUARES_DAMPING, factor.damping);
    }

    fn raised(&mut self, what: &str, asked: f32, used: f32) {
        let warning =
            format!("the Hessian of {what} is singular; damping raised from {asked} to {used}");
        if used > asked && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn stopped(&mut self, epoch: usize) {
        self.warnings.push(format!("epoch {epoch} was not finite, and was not run to its end"));
    }
}

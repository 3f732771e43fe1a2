//! The settings of a run.

use crate::error::{Result, usage};
use crate::model::Model;
use crate::prune::sparsellm::{self, StateType, Storage};
use crate::prune::{Method, Pattern, Scope, Solver, solver, sparsegpt};
use std::ops::Range;

/// The allocation OWL's authors use.
pub const OWL: f32 = 0.08;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which method prunes.
    pub method: Method,
    /// Which weights go.
    pub pattern: Pattern,
    /// Decoder layers to prune; all where `None`.
    pub layers: Option<Range<usize>>,
    /// SparseLLM's α; the family's default where `None` (0.1 for ReLU networks,
    /// 5 for SwiGLU, as the authors').
    pub alpha: Option<f32>,
    /// SparseLLM's β, likewise.
    pub beta: Option<f32>,
    /// SparseLLM's epochs.
    pub epochs: usize,
    /// Relative damping of the Hessians.
    pub damping: f32,
    /// Columns per block of the OBS sweep.
    pub block_size: usize,
    /// Round kept weights to this many bits (second-order methods).
    pub bits: Option<u32>,
    /// Recapture a group's inputs after the groups before it were pruned.
    pub true_sequential: bool,
    /// Which solver finds each linear's mask and weights.
    pub solver: Solver,
    /// Among which weights the solver chooses its mask.
    pub mask_scope: Scope,
    /// Conjugate-gradient steps of masked refit after each prune; 0 for none.
    pub refit: usize,
    /// How far the layers' sparsities spread by their outliers: OWL's λ; 0 for
    /// uniform sparsity.
    pub allocation: f32,
    /// Global methods: solve the last linear again on the pruned first linears'
    /// true activations.
    pub sequential_refit: bool,
    /// Global methods: how far the target moves from the layer's own dense
    /// output (0) to the dense model's hidden states (1).
    pub target: f32,
    /// Global methods: how much what a neuron is worth to the network's output
    /// weighs in the first linears' masks, from 0 (not at all) to 1.
    pub neuron_weights: f32,
    /// Global methods: the number type that z and s are kept in.
    pub state: StateType,
}

impl Default for Settings {
    fn default() -> Self {
        Settings::of(Method::SparseLlmPlus)
    }
}

impl Settings {
    /// A method as it is published; for `sparsellm-plus`, the recipe that
    /// measured best (docs/results.md).
    pub fn of(method: Method) -> Self {
        let published = Settings {
            method,
            pattern: Pattern::Unstructured(0.7),
            layers: None,
            alpha: None,
            beta: None,
            epochs: 4,
            damping: 0.01,
            block_size: 128,
            bits: None,
            true_sequential: false,
            solver: Solver::Obs,
            mask_scope: Solver::Obs.scope(),
            refit: 0,
            allocation: 0.0,
            sequential_refit: false,
            target: 0.0,
            neuron_weights: 0.0,
            state: StateType::F32,
        };
        match method {
            Method::SparseLlmPlus => Settings {
                epochs: 2,
                true_sequential: true,
                solver: Solver::Admm,
                mask_scope: Solver::Admm.scope(),
                allocation: OWL,
                sequential_refit: true,
                target: 0.25,
                neuron_weights: 0.5,
                ..published
            },
            _ => published,
        }
    }

    /// Whether pruning looks at calibration text.
    pub fn needs_text(&self) -> bool {
        self.method != Method::Magnitude || self.refit > 0 || self.allocation > 0.0
    }

    /// Fails on settings that no run on `model` can honour, before any work.
    pub fn check(&self, model: &Model) -> Result<()> {
        let layers = model.shape().layers;
        if let Some(range) = &self.layers
            && (range.is_empty() || range.end > layers)
        {
            return usage!(
                "--layers {}..{}: the model has decoder layers 0..{layers}",
                range.start,
                range.end
            );
        }
        let positive = |name: &str, value: f32| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => usage!("--{name} must be a positive number, not {value}"),
        };
        positive("alpha", self.alpha.unwrap_or(1.0))?;
        positive("beta", self.beta.unwrap_or(1.0))?;
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            return usage!("--damping must be a number of at least 0, not {}", self.damping);
        }
        if self.epochs == 0 || self.block_size == 0 {
            return usage!("--epochs and --block-size must be at least 1");
        }
        if self.bits.is_some_and(|b| !(2..=16).contains(&b)) {
            return usage!("--bits must be from 2 to 16");
        }
        if self.bits.is_some()
            && (self.method.only_removes() || self.solver == Solver::Admm || self.refit > 0)
        {
            return usage!(
                "--bits rounds weights within the OBS sweep: use --method sparsegpt or sparsellm, or add --solver obs --refit 0"
            );
        }
        if self.solver == Solver::Admm && self.mask_scope == Scope::Block {
            return usage!(
                "--mask-scope block belongs to the OBS sweep; with --solver admm, choose row or matrix"
            );
        }
        if !(0.0..=0.5).contains(&self.allocation) {
            return usage!(
                "--allocation must be uniform (0), owl ({OWL}) or a number up to 0.5, not {}",
                self.allocation
            );
        }
        if !(0.0..=1.0).contains(&self.target) {
            return usage!("--target must be layer (0), dense (1) or between, not {}", self.target);
        }
        if !(0.0..=1.0).contains(&self.neuron_weights) {
            return usage!("--neuron-weights must be from 0 to 1, not {}", self.neuron_weights);
        }
        if !self.method.is_global()
            && (self.sequential_refit || self.target > 0.0 || self.neuron_weights > 0.0)
        {
            return usage!(
                "--sequential-refit, --target and --neuron-weights are for the global methods, not {}",
                self.method.name()
            );
        }
        if let Pattern::NofM { of, .. } = self.pattern
            && !self.block_size.is_multiple_of(of)
        {
            return usage!(
                "--block-size {} is not a multiple of the pattern's M = {of}",
                self.block_size
            );
        }
        // Tensor shapes were checked against the configuration at opening, so
        // one layer's widths are every layer's.
        for (name, shape) in model.family.linears() {
            self.pattern.check_width(shape[1], name)?;
        }
        Ok(())
    }

    /// The global method's part, with z and s in memory: `default` stands in
    /// for an α or β that was not asked for.
    pub(crate) fn global(&self, default: f32, chunk: usize) -> sparsellm::Settings {
        sparsellm::Settings {
            pattern: self.pattern,
            solver: self.solver(),
            sequential_refit: self.sequential_refit,
            target: self.target,
            neuron_weights: self.neuron_weights,
            alpha: self.alpha.unwrap_or(default),
            beta: self.beta.unwrap_or(default),
            epochs: self.epochs,
            chunk,
            storage: Storage { state: self.state, spill: None },
        }
    }

    /// How a linear is pruned.
    pub(crate) fn solver(&self) -> solver::Options {
        solver::Options {
            solver: self.solver,
            scope: self.mask_scope,
            damping: self.damping,
            sweep: sparsegpt::Sweep { block_size: self.block_size, bits: self.bits },
            refit: self.refit,
        }
    }
}

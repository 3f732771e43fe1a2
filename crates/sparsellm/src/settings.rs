//! The settings of a run.

use crate::error::{Result, usage};
use crate::model::Model;
use crate::prune::{Method, Pattern, sparsegpt};
use std::ops::Range;

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
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            method: Method::SparseLlm,
            pattern: Pattern::Unstructured(0.7),
            layers: None,
            alpha: None,
            beta: None,
            epochs: 4,
            damping: 0.01,
            block_size: 128,
            bits: None,
            true_sequential: false,
        }
    }
}

impl Settings {
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
        if self.bits.is_some() && matches!(self.method, Method::Magnitude | Method::Wanda) {
            return usage!("--bits needs a second-order method: sparsegpt or sparsellm");
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

    /// How the OBS solver goes about it.
    pub(crate) fn sweep(&self) -> sparsegpt::Sweep {
        sparsegpt::Sweep { block_size: self.block_size, bits: self.bits }
    }
}

//! One decoder layer's linears pruned: inputs captured group by group, each
//! group handed to its method, what comes of it reported.

use super::{CHUNK, chunks};
use crate::error::{Error, Result, invalid};
use crate::event::Event;
use crate::linalg::{Gram, Matrix, View};
use crate::model::{DecoderLayer, FeedForward, Group, Model};
use crate::profile::{Phase, phase};
use crate::prune::pattern::measured_sparsity;
use crate::prune::{Method, magnitude, solver::Problem, sparsellm, sparsellm::Storage, wanda};
use crate::report::{LayerReport, LinearReport};
use crate::settings::Settings;
use rayon::prelude::*;
use std::{collections::BTreeMap, time::Instant};

/// `‖X_j‖²` per feature.
pub struct SquaredNorms(pub Vec<f64>);

impl SquaredNorms {
    pub fn new(d_in: usize) -> Self {
        SquaredNorms(vec![0.0; d_in])
    }

    pub fn add(&mut self, x: View) {
        for row in x.data.chunks_exact(x.cols.max(1)) {
            self.0.iter_mut().zip(row).for_each(|(n, &v)| *n += f64::from(v) * f64::from(v));
        }
    }
}

/// What a method needs to know of a group's inputs.
enum Statistics {
    Nothing,
    SquaredNorms(SquaredNorms),
    /// `XᵀX`.
    Gram(Gram),
}

impl Statistics {
    fn new(settings: &Settings, d_in: usize) -> Self {
        match settings.method {
            Method::Magnitude if settings.refit == 0 => Statistics::Nothing,
            Method::Wanda if settings.refit == 0 => {
                Statistics::SquaredNorms(SquaredNorms::new(d_in))
            }
            _ => Statistics::Gram(Gram::new(d_in)),
        }
    }

    /// `‖X_j‖²` per feature; empty where nothing was gathered.
    fn squared_norms(&self) -> Vec<f32> {
        match self {
            Statistics::Nothing => Vec::new(),
            Statistics::SquaredNorms(norms) => norms.0.iter().map(|&n| n as f32).collect(),
            Statistics::Gram(gram) => gram.diagonal(),
        }
    }

    fn add(&mut self, x: View) {
        match self {
            Statistics::Nothing => {}
            Statistics::SquaredNorms(norms) => norms.add(x),
            Statistics::Gram(gram) => gram.add(x),
        }
    }
}

/// One decoder layer being pruned.
pub struct LayerWork<'a> {
    pub model: &'a Model,
    pub settings: &'a Settings,
    pub index: usize,
    pub prefix: String,
    pub layer: DecoderLayer,
    pub seq_len: usize,
    /// How the global method keeps z and s.
    pub storage: &'a Storage,
    pub observe: &'a mut dyn FnMut(Event),
}

impl LayerWork<'_> {
    /// Prunes the layer's linears on the hidden states it is given; `dense`
    /// holds the dense model's hidden states after it.
    pub fn prune(&mut self, hidden: &Matrix, dense: Option<&Matrix>) -> Result<LayerReport> {
        let mut report = LayerReport {
            index: self.index,
            linears: BTreeMap::new(),
            ffn_error: Vec::new(),
            kept_epoch: 0,
        };
        // SparseLLM takes the feed-forward network as a whole.
        let global = self.settings.method.is_global();
        let local = if global { &Group::ALL[..2] } else { &Group::ALL[..] };
        let sequential = self.settings.true_sequential;
        // The global method's X is the dense layer's, unless recaptured.
        let mut x = (global && !sequential).then(|| no_rows(hidden));
        for groups in local.chunks(if sequential { 1 } else { local.len() }) {
            let statistics = phase(Phase::Forward, || self.capture(hidden, groups, x.as_mut()));
            for (&group, statistics) in groups.iter().zip(statistics) {
                self.prune_group(group, statistics, &mut report)?;
            }
        }
        if global {
            let (x, reference) = phase(Phase::Forward, || self.ffn_ends(hidden, x, dense));
            self.prune_ffn(&x, reference, &mut report)?;
        }
        Ok(report)
    }

    /// Runs the layer as it is now and gathers the inputs of `groups`; with `x`,
    /// where all of them are attention's, appends the feed-forward network's
    /// inputs to it.
    fn capture(
        &self,
        hidden: &Matrix,
        groups: &[Group],
        mut x: Option<&mut Matrix>,
    ) -> Vec<Statistics> {
        let settings = self.settings;
        let width = |g: &Group| self.layer.linears(*g)[0].weight.cols;
        let mut statistics: Vec<_> =
            groups.iter().map(|g| Statistics::new(settings, width(g))).collect();
        if !settings.needs_text() {
            return statistics;
        }
        let attention_only =
            groups.iter().all(|g| matches!(g, Group::AttentionIn | Group::AttentionOut));
        for mut h in chunks(hidden, self.seq_len) {
            let capture = |group, x: View| {
                if let Some(i) = groups.iter().position(|g| *g == group) {
                    statistics[i].add(x);
                }
            };
            if attention_only {
                self.layer.attend(&mut h, self.seq_len, capture);
                if let Some(x) = &mut x {
                    append(x, self.layer.ffn_input(&h));
                }
            } else {
                self.layer.forward(&mut h, self.seq_len, capture);
            }
        }
        statistics
    }

    /// The feed-forward network's inputs for all tokens, `[tokens, d]`, where
    /// `x` does not hold them yet; and where the `dense` model's hidden states
    /// after this layer are given, what the network would have to give to end in
    /// them.
    fn ffn_ends(
        &self,
        hidden: &Matrix,
        x: Option<Matrix>,
        dense: Option<&Matrix>,
    ) -> (Matrix, Option<Matrix>) {
        let missing = x.is_none();
        let mut x = x.unwrap_or_else(|| no_rows(hidden));
        let mut reference = dense.cloned();
        if missing || dense.is_some() {
            let mut at = 0;
            for mut h in chunks(hidden, self.seq_len) {
                self.layer.attend(&mut h, self.seq_len, |_, _| {});
                if let Some(reference) = &mut reference {
                    let part = &mut reference.data[at..at + h.data.len()];
                    part.par_iter_mut().zip(&h.data).for_each(|(r, h)| *r -= h);
                    at += h.data.len();
                }
                if missing {
                    append(&mut x, self.layer.ffn_input(&h));
                }
            }
        }
        (x, reference)
    }

    /// Prunes the linears that share an input.
    fn prune_group(
        &mut self,
        group: Group,
        statistics: Statistics,
        report: &mut LayerReport,
    ) -> Result<()> {
        let settings = self.settings;
        let problem = match &statistics {
            Statistics::Gram(gram) => Some(self.problem(gram, group)?),
            _ => None,
        };
        let started = Instant::now();
        let norms = statistics.squared_norms();
        let local = |w: &mut Matrix| match settings.method {
            Method::Wanda => wanda::prune(w, &norms, settings.pattern),
            _ => magnitude::prune(w, settings.pattern),
        };
        let mut done = Vec::new();
        for linear in self.layer.linears_mut(group) {
            let before = problem.as_ref().map(|_| linear.weight.clone());
            let w = &mut linear.weight;
            match &problem {
                None => phase(Phase::Solve, || local(w)),
                Some(problem) if settings.method.only_removes() => {
                    problem.prune_by(w, |w, _| local(w))
                }
                Some(problem) => problem.prune(w, settings.pattern, None),
            }
            let error = match (&statistics, before) {
                (Statistics::Gram(gram), Some(before)) => Some(output_error(gram, &before, w)),
                _ => None,
            };
            done.push((linear.name, error));
        }
        let seconds = started.elapsed().as_secs_f64() / done.len().max(1) as f64;
        let raised_damping = problem.map(|p| p.factor.damping).filter(|&d| d > settings.damping);
        for (name, error) in done {
            self.finish_linear(name, error, seconds, raised_damping, report)?;
        }
        Ok(())
    }

    fn problem(&mut self, gram: &Gram, group: Group) -> Result<Problem> {
        let name = self.layer.linears(group)[0].name;
        let Some(problem) = Problem::new(gram, self.settings.solver()) else {
            return Err(Error::Invalid(format!(
                "layer {}: the inputs of {name} are not finite on the calibration text, so there is nothing to prune against; check the checkpoint with `sparsellm eval`",
                self.index
            )));
        };
        let factor = &problem.factor;
        if factor.damping > self.settings.damping {
            (self.observe)(Event::Warning(format!(
                "layer {} {name}: the Hessian is singular; damping raised from {} to {}",
                self.index, self.settings.damping, factor.damping
            )));
        }
        Ok(problem)
    }

    /// Prunes the feed-forward network globally.
    fn prune_ffn(
        &mut self,
        x: &Matrix,
        reference: Option<Matrix>,
        report: &mut LayerReport,
    ) -> Result<()> {
        let started = Instant::now();
        let s = self.settings;
        let default = match self.layer.ffn {
            FeedForward::SwiGlu { .. } => 5.0,
            FeedForward::Mlp { .. } => 0.1,
        };
        let settings =
            sparsellm::Settings { storage: self.storage.clone(), ..s.global(default, CHUNK) };
        let (index, observe) = (self.index, &mut *self.observe);
        let outcome =
            sparsellm::prune(&mut self.layer.ffn, x, reference, &settings, |epoch, error| {
                observe(Event::Epoch { index, epoch, error });
            });
        let outcome = match outcome {
            Err(Error::Invalid(what)) => return invalid!("layer {index}: {what}"),
            other => other?,
        };
        report.ffn_error = outcome.errors;
        report.kept_epoch = outcome.kept_epoch;
        let names: Vec<_> = [Group::FfnIn, Group::FfnOut]
            .into_iter()
            .flat_map(|g| self.layer.linears(g))
            .map(|l| l.name)
            .collect();
        let seconds = started.elapsed().as_secs_f64() / names.len() as f64;
        for name in names {
            self.finish_linear(name, None, seconds, None, report)?;
        }
        Ok(())
    }

    /// Rounds a pruned linear to the type it is written in, so that what runs
    /// on is what is written, and reports it.
    fn finish_linear(
        &mut self,
        name: &'static str,
        error: Option<f64>,
        seconds: f64,
        raised_damping: Option<f32>,
        report: &mut LayerReport,
    ) -> Result<()> {
        let Some(linear) = self.layer.linear_mut(name) else {
            return invalid!("layer {} has no linear {name}", self.index);
        };
        let stored = format!("{}{name}.weight", self.prefix);
        phase(Phase::Write, || self.model.checkpoint.round(&stored, &mut linear.weight.data))?;
        if let Some(w) = linear.weight.data.iter().find(|w| !w.is_finite()) {
            return invalid!(
                "{stored}: a pruned weight became {w} in the checkpoint's number type; raise --damping, or convert the checkpoint to bf16 or f32"
            );
        }
        linear.pack();
        let sparsity = measured_sparsity(&linear.weight.data);
        let done = LinearReport { sparsity, error, seconds, raised_damping };
        (self.observe)(Event::Linear { index: self.index, name, report: &done });
        report.linears.insert(name.to_string(), done);
        Ok(())
    }
}

/// A matrix without rows, with room for as many as `like` has.
fn no_rows(like: &Matrix) -> Matrix {
    Matrix { rows: 0, cols: like.cols, data: Vec::with_capacity(like.data.len()) }
}

fn append(to: &mut Matrix, rows: Matrix) {
    to.data.extend_from_slice(&rows.data);
    to.rows += rows.rows;
}

/// `‖X(W − Ŵ)ᵀ‖²/‖XWᵀ‖² = tr(ΔGΔᵀ)/tr(WGWᵀ)`, from the Gram matrix alone.
fn output_error(gram: &Gram, before: &Matrix, after: &Matrix) -> f64 {
    let mut delta = before.clone();
    delta.data.iter_mut().zip(&after.data).for_each(|(d, a)| *d -= a);
    gram.energy(&delta) / gram.energy(before).max(f64::MIN_POSITIVE)
}

//! One decoder layer's linears pruned: inputs captured group by group, each
//! group handed to its method, what comes of it reported.

use super::{
    chunks,
    statistics::{Statistics, output_error},
    together,
};
use crate::error::{Error, Result, invalid};
use crate::event::{Event, Observer};
use crate::linalg::{Gram, Matrix, View, on_rows, raised};
use crate::model::{DecoderLayer, FeedForward, Group, Model};
use crate::profile::{Phase, phase};
use crate::prune::pattern::measured_sparsity;
use crate::prune::{
    Method, magnitude,
    solver::{Options, Problem},
    sparsellm,
    sparsellm::Storage,
    wanda,
};
use crate::ranks::Communicator;
use crate::report::{LayerReport, LinearReport};
use crate::settings::Settings;
use rayon::prelude::*;
use std::{collections::BTreeMap, time::Instant};

/// No damping larger than this is tried: nothing is left of the Hessian by then.
const MOST_DAMPING: f32 = 1e6;

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
    pub ranks: &'a dyn Communicator,
    pub observe: &'a mut Observer<'a>,
}

impl<'a> LayerWork<'a> {
    /// Prunes the layer's linears on this rank's hidden states; `dense`
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
            self.prune_ffn(hidden, x, dense, &mut report)?;
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
        statistics.iter_mut().for_each(|s| s.sum(self.ranks));
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

    /// Prunes the linears that share an input, with as much damping as their
    /// weights then need to fit the number type they are written in.
    fn prune_group(
        &mut self,
        group: Group,
        statistics: Statistics,
        report: &mut LayerReport,
    ) -> Result<()> {
        let mut damping = self.settings.damping;
        let (done, seconds, used) = loop {
            let problem = match &statistics {
                Statistics::Gram(gram) => Some(self.problem(gram, group, damping)?),
                _ => None,
            };
            let started = Instant::now();
            let done = self.prune_linears(group, &statistics, problem.as_ref());
            let used = problem.map_or(damping, |p| p.factor.damping);
            if self.fits(group) || used > MOST_DAMPING {
                break (done, started.elapsed().as_secs_f64(), used);
            }
            damping = self.begin_again(&[group], used)?;
        };
        let seconds = seconds / done.len().max(1) as f64;
        for (name, error) in done {
            self.finish_linear(name, error, seconds, used, report)?;
        }
        Ok(())
    }

    /// Prunes the linears of a group; the error of each, where it is known.
    fn prune_linears(
        &mut self,
        group: Group,
        statistics: &Statistics,
        problem: Option<&Problem>,
    ) -> Vec<(&'static str, Option<f64>)> {
        let (settings, ranks) = (self.settings, self.ranks);
        let norms = statistics.squared_norms();
        let local = |w: &mut Matrix| match settings.method {
            Method::Wanda => wanda::prune(w, &norms, settings.pattern, ranks),
            _ => magnitude::prune(w, settings.pattern, ranks),
        };
        let mut done = Vec::new();
        for linear in self.layer.linears_mut(group) {
            let before = problem.map(|_| linear.weight.clone());
            let w = &mut linear.weight;
            match problem {
                None => phase(Phase::Solve, || on_rows(ranks, w, |w, _| local(w))),
                Some(problem) if settings.method.only_removes() => {
                    problem.prune_by(w, |w, _, _| local(w))
                }
                Some(problem) => problem.prune(w, settings.pattern, None),
            }
            let error = match (statistics, before) {
                (Statistics::Gram(gram), Some(before)) => {
                    Some(output_error(gram, &before, w, ranks))
                }
                _ => None,
            };
            // JSON, and so a resumed run, knows no other numbers.
            done.push((linear.name, error.filter(|e| e.is_finite())));
        }
        done
    }

    fn problem(&mut self, gram: &Gram, group: Group, damping: f32) -> Result<Problem<'a>> {
        let name = self.layer.linears(group)[0].name;
        let options = Options { damping, ..self.settings.solver() };
        let Some(problem) = Problem::new(gram, options, self.ranks) else {
            return self.not_finite(name);
        };
        let used = problem.factor.damping;
        if used > damping {
            self.warn(format!(
                "{name}: the Hessian is singular; damping raised from {damping} to {used}"
            ))?;
        }
        Ok(problem)
    }

    fn not_finite<T>(&self, whose: &str) -> Result<T> {
        invalid!(
            "layer {}: the inputs of {whose} are not finite on the calibration text, so there is nothing to prune against; check the checkpoint with `sparsellm eval`",
            self.index
        )
    }

    fn warn(&mut self, what: String) -> Result<()> {
        (self.observe)(Event::Warning(format!("layer {} {what}", self.index)))
    }

    /// Whether a group's weights can be written as the numbers they are.
    fn fits(&self, group: Group) -> bool {
        self.layer.linears(group).iter().all(|linear| {
            let stored = self.model.checkpoint.info(&self.stored(linear.name));
            let largest = stored.map_or(f32::MAX, |info| info.dtype.largest());
            linear.weight.data.par_iter().all(|w| w.abs() <= largest)
        })
    }

    /// Takes these groups' weights from the checkpoint again, and raises the
    /// damping that was not enough.
    fn begin_again(&mut self, groups: &[Group], damping: f32) -> Result<f32> {
        let (mut dense, more) = (self.model.layer(self.index)?, raised(damping));
        for group in groups {
            let again = self.layer.linears_mut(*group).into_iter().zip(dense.linears_mut(*group));
            again.for_each(|(linear, dense)| std::mem::swap(linear, dense));
            let name = self.layer.linears(*group)[0].name;
            self.warn(format!(
                "{name}: pruned weights are too large to be written; damping raised from {damping} to {more}"
            ))?;
        }
        Ok(more)
    }

    /// Prunes the feed-forward network globally, with as much damping as it needs.
    fn prune_ffn(
        &mut self,
        hidden: &Matrix,
        x: Option<Matrix>,
        dense: Option<&Matrix>,
        report: &mut LayerReport,
    ) -> Result<()> {
        const GROUPS: [Group; 2] = [Group::FfnIn, Group::FfnOut];
        let started = Instant::now();
        let (mut x, mut reference) = phase(Phase::Forward, || self.ffn_ends(hidden, x, dense));
        if !x.data.par_iter().all(|v| v.is_finite()) {
            return self.not_finite("its feed-forward network");
        }
        let mut damping = self.settings.damping;
        let outcome = loop {
            let outcome = self.ffn_outcome(&x, reference, damping);
            let fits = GROUPS.iter().all(|g| self.fits(*g));
            match outcome {
                Ok(outcome) if fits => break outcome,
                Ok(_) | Err(Error::Invalid(_)) if damping <= MOST_DAMPING => {}
                Ok(outcome) => break outcome,
                Err(error) => return Err(error),
            }
            damping = self.begin_again(&GROUPS, damping)?;
            (x, reference) = phase(Phase::Forward, || self.ffn_ends(hidden, Some(x), dense));
        };
        for warning in &outcome.warnings {
            self.warn(format!("feed-forward: {warning}"))?;
        }
        report.ffn_error = outcome.errors;
        report.kept_epoch = outcome.kept_epoch;
        let names: Vec<_> = GROUPS
            .iter()
            .zip(outcome.damping)
            .flat_map(|(g, used)| self.layer.linears(*g).into_iter().map(move |l| (l.name, used)))
            .collect();
        let seconds = started.elapsed().as_secs_f64() / names.len() as f64;
        for (name, used) in names {
            self.finish_linear(name, None, seconds, used, report)?;
        }
        Ok(())
    }

    fn ffn_outcome(
        &mut self,
        x: &Matrix,
        reference: Option<Matrix>,
        damping: f32,
    ) -> Result<sparsellm::Outcome> {
        let s = self.settings;
        let default = match self.layer.ffn {
            FeedForward::SwiGlu { .. } => 5.0,
            FeedForward::Mlp { .. } => 0.1,
        };
        let mut settings = sparsellm::Settings {
            storage: self.storage.clone(),
            ..s.global(default, together(self.seq_len) * self.seq_len)
        };
        settings.solver.damping = damping;
        let (index, observe) = (self.index, &mut *self.observe);
        let observe = |epoch, error| observe(Event::Epoch { index, epoch, error });
        let ffn = &mut self.layer.ffn;
        match sparsellm::prune(ffn, x, reference, &settings, self.ranks, observe) {
            Err(Error::Invalid(what)) => invalid!("layer {index}: {what}"),
            other => other,
        }
    }

    fn stored(&self, name: &str) -> String {
        super::stored(&self.prefix, name)
    }

    /// Rounds a pruned linear to the type it is written in, so that what runs
    /// on is what is written, and reports it.
    fn finish_linear(
        &mut self,
        name: &'static str,
        error: Option<f64>,
        seconds: f64,
        damping: f32,
        report: &mut LayerReport,
    ) -> Result<()> {
        let stored = self.stored(name);
        let Some(linear) = self.layer.linear_mut(name) else {
            return invalid!("layer {} has no linear {name}", self.index);
        };
        phase(Phase::Write, || self.model.checkpoint.round(&stored, &mut linear.weight.data))?;
        if let Some(w) = linear.weight.data.iter().find(|w| !w.is_finite()) {
            return invalid!(
                "{stored}: a pruned weight became {w} in the checkpoint's number type; raise --damping, or convert the checkpoint to bf16 or f32"
            );
        }
        linear.pack();
        let sparsity = measured_sparsity(&linear.weight.data);
        let raised_damping = Some(damping).filter(|d| *d > self.settings.damping);
        let done = LinearReport { sparsity, error, seconds, raised_damping };
        (self.observe)(Event::Linear { index: self.index, name, report: &done })?;
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

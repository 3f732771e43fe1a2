//! Prunes the linears of one decoder layer: captures inputs group by group, hands each group
//! to the method, and reports the results.

use super::{
    plan::Plan,
    statistics::{Statistics, output_error},
};
use crate::{
    Gram, LayerReport, LinearReport, Problem, Selection, Settings, Share,
    hessian::{on_rows, raised_damping},
    measured_sparsity,
    methods::Inputs,
    sparsellm::{Outcome, Reference, Streaming, Task, prune_network},
    tune::{HalfTask, run_half, tune_half},
};
use rayon::prelude::*;
use sparsellm_base::{Event, Observer, Result, input_error, numerics_error};
use sparsellm_model::{Block, Group, HalfInput, Part, Residual, chunks};
use sparsellm_tensor::profile::{Phase, phase};
use sparsellm_tensor::{Matrix, View};
use std::{collections::BTreeMap, time::Instant};

/// The largest damping that is tried; beyond it the Hessian no longer matters.
const MOST_DAMPING: f32 = 1e6;

/// The place among [`Block::groups`] of the last group of attention.
const ATTENTION: usize = 1;

/// One decoder layer being pruned.
pub struct LayerWork<'a> {
    pub plan: Plan<'a>,
    pub index: usize,
    pub block: Block,
    pub seq_len: usize,
    /// What is asked of each of the block's linears.
    pub shares: &'a [Share],
    /// How SparseLLM streams its tokens.
    pub streaming: &'a Streaming,
}

/// The dense model's hidden states.
#[derive(Clone, Copy)]
pub struct DenseStates<'a> {
    /// Before the layer; only if its halves are tuned.
    pub before: Option<&'a Matrix>,
    /// After it.
    pub after: &'a Matrix,
}

/// The result of pruning one linear.
struct Fared {
    error: Option<f64>,
    seconds: f64,
    damping: f32,
}

impl<'a> LayerWork<'a> {
    /// Prunes the layer's linears, given this rank's `hidden` states before the layer. `dense`
    /// holds the dense model's hidden states after it, if targets lean on them.
    pub fn prune(
        &mut self,
        hidden: &Matrix,
        dense: Option<DenseStates>,
        observe: &mut Observer,
    ) -> Result<LayerReport> {
        // What halves are tuned towards.
        let original = self.plan.settings.tune.blocks().then(|| self.block.clone());
        let mut report = LayerReport {
            index: self.index,
            linears: BTreeMap::new(),
            ffn_error: Vec::new(),
            kept_epoch: 0,
            tuned: BTreeMap::new(),
        };
        // SparseLLM prunes the feed-forward network as a whole.
        let global = self.plan.method.runs_sparsellm();
        let groups = self.block.groups();
        let local: Vec<usize> =
            (0..groups.len()).filter(|i| !global || groups[*i].part == Part::Attention).collect();
        let sequential = self.plan.settings.true_sequential;
        // SparseLLM's X is the dense layer's, unless it is captured again (true-sequential).
        let mut x = (global && !sequential).then(|| no_rows(hidden));
        for together in local.chunks(if sequential { 1 } else { local.len().max(1) }) {
            let statistics =
                phase(Phase::Forward, || self.capture(hidden, &groups, together, x.as_mut()));
            for (&group, statistics) in together.iter().zip(statistics) {
                self.prune_group(&groups[group], statistics, &mut report, observe)?;
            }
            if let Some(original) = original.as_ref().filter(|_| together.contains(&ATTENTION)) {
                self.tune(Part::Attention, hidden, (original, dense), &mut report)?;
            }
        }
        if global {
            self.prune_ffn(hidden, x, dense.map(|dense| dense.after), &mut report, observe)?;
        }
        if let Some(original) = &original {
            self.tune(Part::Ffn, hidden, (original, dense), &mut report)?;
        }
        Ok(report)
    }

    /// Tunes a half that was just pruned. Its target leans from what the `original` half would do,
    /// to the dense model's hidden states after it.
    fn tune(
        &mut self,
        part: Part,
        hidden: &Matrix,
        (original, dense): (&Block, Option<DenseStates>),
        report: &mut LayerReport,
    ) -> Result<()> {
        let Plan { settings, model, ranks, .. } = self.plan;
        let seq_len = self.seq_len;
        let run = |block: &Block, part, input| {
            phase(Phase::Forward, || run_half(block, part, input, seq_len))
        };
        let whole = HalfInput { stream: hidden, read: hidden };
        let middle = (part == Part::Ffn).then(|| run(&self.block, Part::Attention, whole));
        let stream = middle.as_ref().unwrap_or(hidden);
        let serial = self.block.residual == Residual::Serial;
        let input = HalfInput { stream, read: if serial { stream } else { hidden } };
        let mut target = run(original, part, input);
        if let Some(DenseStates { before: Some(before), after }) = dense {
            let input = HalfInput { stream: before, read: before };
            let attended = (part == Part::Attention).then(|| run(original, Part::Attention, input));
            let pairs = target.data.par_iter_mut().zip(&attended.as_ref().unwrap_or(after).data);
            pairs.for_each(|(t, dense)| *t += settings.target * (dense - *t));
        }
        let checkpoint = &model.checkpoint;
        let task = HalfTask {
            part,
            input,
            target: &target,
            seq_len,
            settings: &settings.tuning,
            keep: self.streaming.keep(settings.state),
            checkpoint,
            ranks,
        };
        let tuned = phase(Phase::Tune, || tune_half(&mut self.block, &task))?;
        let name = match part {
            Part::Attention => "attention",
            Part::Ffn => "feed-forward",
        };
        report.tuned.insert(name.into(), tuned);
        Ok(())
    }

    /// Runs the layer with its current weights and gathers statistics of the inputs of the groups
    /// `wanted`. If `x` is given and all of these groups belong to attention, the inputs of the
    /// feed-forward network are appended to it.
    fn capture(
        &self,
        hidden: &Matrix,
        groups: &[Group],
        wanted: &[usize],
        mut x: Option<&mut Matrix>,
    ) -> Vec<Statistics> {
        let Plan { method, settings, .. } = self.plan;
        let new =
            |i: &usize| Statistics::new(method, settings, self.block.input_width(&groups[*i]));
        let mut statistics: Vec<_> = wanted.iter().map(new).collect();
        if !self.plan.needs_text() {
            return statistics;
        }
        let attention_only = wanted.iter().all(|i| groups[*i].part == Part::Attention);
        for mut h in chunks(hidden, self.seq_len) {
            let before = (attention_only && x.is_some()).then(|| h.clone());
            let capture = |group: usize, x: View| {
                if let Some(i) = wanted.iter().position(|wanted| *wanted == group) {
                    statistics[i].add(x);
                }
            };
            if attention_only {
                self.block.attend(&mut h, self.seq_len, capture);
                if let (Some(x), Some(before)) = (&mut x, before) {
                    append(x, self.block.ffn_input(&before, &h));
                }
            } else {
                let positions = sparsellm_model::Positions::segments(self.seq_len);
                self.block.forward(&mut h, positions, None, capture);
            }
        }
        statistics.iter_mut().for_each(|s| s.sum(self.plan.ranks));
        statistics
    }

    /// The two ends of the feed-forward network on all tokens: its inputs, `[tokens, d]`, and the
    /// reference that its target leans on.
    ///
    /// The inputs are computed unless `x` already holds them. The reference exists only if the
    /// `dense` model's hidden states after this layer are given: it is the output with which the
    /// network, added to the hidden states after attention, would restore them.
    fn ffn_ends(
        &self,
        hidden: &Matrix,
        x: Option<Matrix>,
        dense: Option<&Matrix>,
    ) -> (Matrix, Option<Reference>) {
        let missing = x.is_none();
        let mut x = x.unwrap_or_else(|| no_rows(hidden));
        let mut output = dense.cloned();
        if missing || dense.is_some() {
            let mut at = 0;
            for mut h in chunks(hidden, self.seq_len) {
                let before = missing.then(|| h.clone());
                self.block.attend(&mut h, self.seq_len, |_, _| {});
                if let Some(output) = &mut output {
                    let part = &mut output.data[at..at + h.data.len()];
                    part.par_iter_mut().zip(&h.data).for_each(|(r, h)| *r -= h);
                    at += h.data.len();
                }
                if let Some(before) = before {
                    append(&mut x, self.block.ffn_input(&before, &h));
                }
            }
        }
        let norm = self.block.ffn_norms.output.clone();
        (x, output.map(|output| Reference { output, norm }))
    }

    /// Prunes the linears that share an input. The damping is raised until the pruned weights fit
    /// the number type in which they are stored.
    fn prune_group(
        &mut self,
        group: &Group,
        statistics: Statistics,
        report: &mut LayerReport,
        observe: &mut Observer,
    ) -> Result<()> {
        let mut damping = self.plan.settings.damping;
        let (errors, seconds, used) = loop {
            let problem = match &statistics {
                Statistics::Gram(gram) => Some(self.problem(gram, group, damping, observe)?),
                _ => None,
            };
            let started = Instant::now();
            let errors = self.prune_linears(group, &statistics, problem.as_ref());
            let used = problem.map_or(damping, |p| p.factor.damping);
            if self.fits(&group.linears) || used > MOST_DAMPING {
                break (errors, started.elapsed().as_secs_f64(), used);
            }
            damping = self.begin_again(&[group], used, observe)?;
        };
        let seconds = seconds / errors.len().max(1) as f64;
        for (&linear, error) in group.linears.iter().zip(errors) {
            let fared = Fared { error, seconds, damping: used };
            self.finish_linear(linear, fared, report, observe)?;
        }
        Ok(())
    }

    /// Prunes the linears of a group. Returns the output error of each, if it is measured.
    fn prune_linears(
        &mut self,
        group: &Group,
        statistics: &Statistics,
        problem: Option<&Problem>,
    ) -> Vec<Option<f64>> {
        let Plan { method, settings, ranks, .. } = self.plan;
        let norms = statistics.squared_norms();
        let mut errors = Vec::new();
        let mut linears = self.block.linears_mut();
        for &linear in &group.linears {
            let weight = &mut linears[linear].weight;
            let before = problem.map(|_| weight.view().to_matrix());
            let held = settings.held(weight);
            let selection = Selection {
                held: held.as_deref(),
                ..self.shares[linear].selection(settings, ranks)
            };
            let prune = |w: &mut Matrix, products: Option<&Matrix>, rows| {
                let inputs = Inputs { squared_norms: &norms, problem, products };
                method.prune(w, &inputs, &selection.of_rows(rows, w.cols));
            };
            let mut w = weight.edit();
            match problem {
                None => {
                    phase(Phase::Solve, || on_rows(ranks, &mut w, |w, rows| prune(w, None, rows)))
                }
                Some(problem) => problem.prune_by(&mut w, prune),
            }
            let error = match (statistics, before) {
                (Statistics::Gram(gram), Some(before)) => {
                    Some(output_error(gram, &before, &w, ranks))
                }
                _ => None,
            };
            // JSON has no other numbers, and a resumed run must report the same.
            errors.push(error.filter(|e| e.is_finite()));
        }
        errors
    }

    /// Prepares the Hessian of a group's inputs, and warns if it needed more damping.
    fn problem(
        &self,
        gram: &Gram,
        group: &Group,
        damping: f32,
        observe: &mut Observer,
    ) -> Result<Problem<'a>> {
        let name = self.first_name(group);
        let settings = Settings { damping, ..self.plan.settings.clone() };
        let Some(problem) = Problem::new(gram, &settings, self.plan.ranks) else {
            return not_finite(self.index, &format!("the inputs of {name}"));
        };
        let used = problem.factor.damping;
        if used > damping {
            self.warn(
                observe,
                format!("{name}: the Hessian is singular; damping raised from {damping} to {used}"),
            )?;
        }
        Ok(problem)
    }

    /// The name of a group's first linear, by which messages refer to the group.
    fn first_name(&self, group: &Group) -> String {
        let linears = self.block.linears();
        group.linears.first().map_or(String::new(), |i| linears[*i].name.clone())
    }

    fn warn(&self, observe: &mut Observer, what: String) -> Result<()> {
        observe.notify(Event::Warning(format!("layer {} {what}", self.index)))
    }

    /// Whether these linears' weights fit the number type in which they are stored.
    fn fits(&self, linears: &[usize]) -> bool {
        let all = self.block.linears();
        linears.iter().map(|i| all[*i]).all(|linear| {
            let stored = self.plan.model.checkpoint.info(&linear.slot.tensor);
            let float = stored.ok().and_then(|info| info.dtype.float());
            let largest = float.map_or(f32::MAX, |float| float.largest());
            linear.weight.data.par_iter().all(|w| w.abs() <= largest)
        })
    }

    /// Reloads these groups' weights from the checkpoint and returns a damping larger than
    /// `damping`, which was too small.
    fn begin_again(
        &mut self,
        groups: &[&Group],
        damping: f32,
        observe: &mut Observer,
    ) -> Result<f32> {
        let mut dense = self.plan.model.block(self.index)?;
        let more = raised_damping(damping);
        for group in groups {
            let (mut pruned, mut again) = (self.block.linears_mut(), dense.linears_mut());
            group.linears.iter().for_each(|i| std::mem::swap(pruned[*i], again[*i]));
            let name = self.first_name(group);
            self.warn(
                observe,
                format!(
                    "{name}: pruned weights are too large to be written; damping raised from {damping} to {more}"
                ),
            )?;
        }
        Ok(more)
    }

    /// Prunes the feed-forward network with SparseLLM. The damping is raised until the result is
    /// finite and fits the number type in which it is stored.
    fn prune_ffn(
        &mut self,
        hidden: &Matrix,
        x: Option<Matrix>,
        dense: Option<&Matrix>,
        report: &mut LayerReport,
        observe: &mut Observer,
    ) -> Result<()> {
        let started = Instant::now();
        let (mut x, mut reference) = phase(Phase::Forward, || self.ffn_ends(hidden, x, dense));
        if !x.data.par_iter().all(|v| v.is_finite()) {
            return not_finite(self.index, "the inputs of its feed-forward network");
        }
        let groups = self.block.groups();
        let ffn: Vec<&Group> = groups.iter().filter(|group| group.part == Part::Ffn).collect();
        let all: Vec<usize> = ffn.iter().flat_map(|group| &group.linears).copied().collect();
        let mut damping = self.plan.settings.damping;
        let outcome = loop {
            let outcome = self.ffn_outcome(&x, reference, damping, observe)?;
            match outcome {
                Some(outcome) if self.fits(&all) || damping > MOST_DAMPING => break outcome,
                None if damping > MOST_DAMPING => {
                    return not_finite(self.index, "the activations of its feed-forward network");
                }
                _ => {}
            }
            damping = self.begin_again(&ffn, damping, observe)?;
            (x, reference) = phase(Phase::Forward, || self.ffn_ends(hidden, Some(x), dense));
        };
        for warning in &outcome.warnings {
            self.warn(observe, format!("feed-forward: {warning}"))?;
        }
        report.ffn_error = outcome.errors;
        report.kept_epoch = outcome.kept_epoch;
        let seconds = started.elapsed().as_secs_f64() / all.len() as f64;
        for (group, damping) in ffn.iter().zip(outcome.damping) {
            for &linear in &group.linears {
                let fared = Fared { error: None, seconds, damping };
                self.finish_linear(linear, fared, report, observe)?;
            }
        }
        Ok(())
    }

    /// Runs SparseLLM on the feed-forward network once, with the given damping.
    fn ffn_outcome(
        &mut self,
        x: &Matrix,
        reference: Option<Reference>,
        damping: f32,
        observe: &mut Observer,
    ) -> Result<Option<Outcome>> {
        let settings = Settings { damping, ..self.plan.settings.clone() };
        let (index, ranks) = (self.index, self.plan.ranks);
        let first = self.shares.len() - self.block.ffn.linears().len();
        let shares = &self.shares[first..];
        let task = Task { x, settings: &settings, shares, streaming: self.streaming, ranks };
        let mut observe = |epoch, error| observe.notify(Event::EpochDone { index, epoch, error });
        prune_network(&mut self.block.ffn, reference, &task, &mut observe)
    }

    /// Rounds a pruned linear to the type in which it is stored, so that later layers see the
    /// weights as they are written, and reports it.
    fn finish_linear(
        &mut self,
        place: usize,
        fared: Fared,
        report: &mut LayerReport,
        observe: &mut Observer,
    ) -> Result<()> {
        let mut linears = self.block.linears_mut();
        let linear = &mut linears[place];
        let (stored, name) = (linear.slot.tensor.clone(), linear.name.clone());
        let mut w = linear.weight.edit();
        phase(Phase::Write, || self.plan.model.checkpoint.round(&stored, &mut w.data))?;
        if let Some(w) = w.data.iter().find(|w| !w.is_finite()) {
            return input_error!(
                "{stored}: a pruned weight became {w} in the checkpoint's number type; raise `damping`, or convert the checkpoint to bf16 or f32"
            );
        }
        let sparsity = measured_sparsity(&w.data);
        let Fared { error, seconds, damping } = fared;
        let raised_damping = Some(damping).filter(|d| *d > self.plan.settings.damping);
        let index = self.index;
        observe.notify(Event::LinearPruned { index, name: &name, sparsity, error, seconds })?;
        report.linears.insert(name, LinearReport { sparsity, error, seconds, raised_damping });
        Ok(())
    }
}

/// The error of a layer in which `what` are not finite.
pub fn not_finite<T>(index: usize, what: &str) -> Result<T> {
    numerics_error!(
        "layer {index}: {what} are not finite on the calibration text, so there is nothing to prune against; check the checkpoint with `sparsellm eval`"
    )
}

/// A matrix without rows that has room for as many as `like` has.
fn no_rows(like: &Matrix) -> Matrix {
    Matrix { rows: 0, cols: like.cols, data: Vec::with_capacity(like.data.len()) }
}

fn append(to: &mut Matrix, rows: Matrix) {
    to.data.extend_from_slice(&rows.data);
    to.rows += rows.rows;
}

//! Tuning through the whole model: minimises the mean over tokens of `KL(p_dense ‖ p_sparse)`.

use super::{
    TuneSettings,
    adam::Step,
    distillation::Distillation,
    epochs::{Orders, Split},
    layer::Values,
    state,
    student::Student,
    teacher::{Teacher, pull},
};
use crate::{Output, rows::Keep};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sparsellm_base::{Error, Event, Observer, Result, numerics_error, usage_error};
use sparsellm_model::{Block, Model, segments_per_chunk};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use sparsellm_text::Segments;
use std::ops::Range;

/// What tuning did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TuneReport {
    /// How many epochs were run.
    pub epochs: usize,
    /// The epoch whose parameters were kept; 0 if none was better than what there was.
    pub kept_epoch: usize,
    /// The loss on the held-out segments, before tuning and after each epoch.
    pub held_out: Vec<f64>,
    /// The mean loss on the training segments during each epoch.
    pub training: Vec<f64>,
}

/// The inputs and options of tuning.
#[derive(Clone, Copy)]
pub struct TunePlan<'a> {
    /// The pruned model, or the dense one if only its `blocks` were pruned: what lies around the
    /// decoder layers, and where parameters are stored.
    pub pruned: &'a Model,
    /// The dense model that it was pruned from.
    pub dense: &'a Model,
    /// The text; the last eighth of its segments is held out.
    pub segments: &'a Segments,
    /// The options.
    pub settings: &'a TuneSettings,
    /// How Adam's moments are kept.
    pub keep: Keep<'a>,
    /// The ranks, which share the segments of each step.
    pub ranks: &'a dyn Communicator,
}

/// Tunes what is kept of pruned decoder layers, `blocks`, until the model says what the dense one
/// says, and writes the parameters that are best on the held-out segments to `output`. The state is
/// saved at the end of each epoch; `done` is the record of the last such epoch, if this run resumes another.
///
/// # Errors
/// If the models do not belong together, weights cannot be read or written, the loss is not
/// finite, or the observer returns an error.
pub fn tune_model(
    plan: &TunePlan,
    blocks: Vec<Block>,
    done: Option<Value>,
    output: &mut Output,
    observe: &mut Observer,
) -> Result<TuneReport> {
    let TunePlan { pruned, dense, segments, settings, keep, ranks } = *plan;
    settings.validate()?;
    let count = segments.count();
    if count < 2 {
        return usage_error!("tuning needs at least 2 segments of `calibration` text");
    }
    let split = Split::of(count);
    let mut run = Run {
        student: Student::new(blocks, settings.arithmetic, keep)?,
        heads: Distillation::new(pruned, dense, settings.arithmetic)?,
        teacher: Teacher::new(plan, output.run_folder(), observe)?,
        hidden_weight: settings.hidden_weight,
        pruned,
        segments,
        ranks,
    };
    let (mut best, mut report) = run.begin(split.held_out.clone(), done, output)?;
    let held_out = report.held_out.last().copied().unwrap_or_default();
    observe.notify(Event::Tuned { epoch: report.epochs, training: None, held_out })?;
    let steps = split.training.div_ceil(settings.batch);
    let all = steps * settings.tune_epochs;
    let mut orders = Orders::new(&split);
    for epoch in 1..=settings.tune_epochs {
        let order = orders.next();
        if epoch <= report.epochs {
            continue; // done by the run that this one resumes
        }
        let (mut training, first) = (0.0, (epoch - 1) * steps);
        for (i, batch) in (first..).zip(order.chunks(settings.batch)) {
            training += run.step(batch, i, all, settings.learning_rate)?;
            observe.notify(Event::Measured { what: "tuning", done: i + 1, of: all })?;
        }
        report.training.push(training / (split.training * segments.seq_len) as f64);
        let values = run.student.rounded(&pruned.checkpoint)?;
        let held_out = run.held_out(&values, split.held_out.clone())?;
        observe.notify(Event::Tuned {
            epoch,
            training: report.training.last().copied(),
            held_out,
        })?;
        if report.held_out.get(report.kept_epoch).is_none_or(|best| held_out < *best) {
            (best, report.kept_epoch) = (values, epoch);
        }
        report.held_out.push(held_out);
        report.epochs = epoch;
        run.save(&best, &report, output)?;
    }
    run.write(&best, output)?;
    Ok(report)
}

/// Everything that a step needs.
struct Run<'a> {
    pruned: &'a Model,
    student: Student,
    heads: Distillation,
    teacher: Teacher,
    /// λ: how much hidden states count beside the divergence.
    hidden_weight: f64,
    segments: &'a Segments,
    ranks: &'a dyn Communicator,
}

impl Run<'_> {
    /// The best parameters and the report so far: those of the pruned model, or those of the
    /// unfinished run that is resumed.
    fn begin(
        &mut self,
        held_out: Range<usize>,
        done: Option<Value>,
        output: &Output,
    ) -> Result<(Vec<Values>, TuneReport)> {
        let mut best = self.student.rounded(&self.pruned.checkpoint)?;
        let Some(record) = done else {
            let loss = self.held_out(&best, held_out)?;
            let held_out = vec![loss];
            let report = TuneReport { epochs: 0, kept_epoch: 0, held_out, training: Vec::new() };
            return Ok((best, report));
        };
        let report = TuneReport::deserialize(record).map_err(|e| {
            let folder = output.folder().display();
            Error::Input(format!(
                "{folder}: the record of an unfinished run is damaged; discard it with `force`: {e}"
            ))
        })?;
        state::read(&state::path(output.run_folder(), report.epochs), |read| {
            best.iter_mut().flatten().try_for_each(|values| read(values))?;
            self.student.restore(read)
        })?;
        Ok((best, report))
    }

    /// Saves the state at the end of an epoch, for a later run to go on from.
    fn save(&mut self, best: &[Values], report: &TuneReport, output: &mut Output) -> Result<()> {
        let path = |epoch| state::path(output.run_folder(), epoch);
        let (new, old) = (path(report.epochs), path(report.epochs - 1));
        if self.ranks.rank() == 0 {
            state::write(&new, |write| {
                best.iter().flatten().try_for_each(|values| write(values))?;
                self.student.save(write)
            })?;
        }
        let record = serde_json::to_value(report)
            .map_err(|e| Error::Input(format!("cannot record an epoch of tuning: {e}")))?;
        output.layer_done(record)?;
        if self.ranks.rank() == 0 {
            // What is left of the epoch before is of no use, and goes with the folder in any case.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }

    /// Writes parameters to the output.
    fn write(&self, values: &[Values], output: &mut Output) -> Result<()> {
        for index in 0..values.len() {
            let mut block = self.student.block_with(values, index);
            output.write_linears(&block)?;
            output.write_vectors(&block.vectors_mut())?;
        }
        Ok(())
    }

    /// Makes step `t` of `of` on a batch of segments, and returns the sum of its tokens' losses.
    fn step(&mut self, batch: &[usize], t: usize, of: usize, rate: f64) -> Result<f64> {
        let seq_len = self.segments.seq_len;
        let scale = 1.0 / (batch.len() * seq_len) as f32;
        let pieces: Vec<&[usize]> = batch.chunks(segments_per_chunk(seq_len)).collect();
        let mut losses = vec![0.0; pieces.len()];
        for i in self.turns(pieces.len()) {
            losses[i] = self.add_gradient(pieces[i], scale)?;
        }
        self.ranks.sum(&mut losses);
        self.student.sum_gradients(self.ranks);
        let sum: f64 = losses.into_iter().sum();
        let norm = self.student.gradient_norm();
        if !(sum.is_finite() && norm.is_finite()) {
            return numerics_error!(
                "the loss of tuning is not finite at step {}; lower `learning_rate`",
                t + 1
            );
        }
        self.student.step(Step::new(t, of, rate, norm))?;
        Ok(sum)
    }

    /// The pieces of work, among so many, that this rank does.
    fn turns(&self, pieces: usize) -> impl Iterator<Item = usize> + use<> {
        (self.ranks.rank()..pieces).step_by(self.ranks.size())
    }

    /// Adds the gradient of the loss on some segments, times `scale`, and returns the sum of their
    /// tokens' losses.
    fn add_gradient(&mut self, segments: &[usize], scale: f32) -> Result<f64> {
        let seq_len = self.segments.seq_len;
        let teacher = self.teacher.last(segments);
        let hidden = self.pruned.embed(&self.tokens(segments), seq_len)?;
        let mut inputs = self.student.forward(hidden, seq_len);
        let last = inputs.pop().unwrap_or_else(|| Matrix::zeros(0, teacher.cols));
        let input = self.pruned.finish(last.clone())?;
        let (loss, d) = self.heads.gradient(input.view(), teacher.view(), scale);
        let d = self.pruned.finish_backward(&last, d)?;
        let Run { student, teacher, hidden_weight, .. } = self;
        let weight = scale * *hidden_weight as f32 / teacher.matched().max(1) as f32;
        student.backward(inputs, d, seq_len, |layer, hidden, d| {
            if let Some(dense) = teacher.after(layer, segments)? {
                pull(hidden.view(), dense.view(), weight, d);
            }
            Ok(())
        })?;
        Ok(loss)
    }

    /// The tokens of some segments.
    fn tokens(&self, segments: &[usize]) -> Vec<u32> {
        let seq_len = self.segments.seq_len;
        let of_segment = |s: &usize| &self.segments.tokens[s * seq_len..(s + 1) * seq_len];
        segments.iter().flat_map(of_segment).copied().collect()
    }

    /// The mean loss on held-out segments, with these values of the parameters.
    fn held_out(&self, values: &[Values], segments: Range<usize>) -> Result<f64> {
        let seq_len = self.segments.seq_len;
        let all: Vec<usize> = segments.collect();
        let pieces: Vec<&[usize]> = all.chunks(segments_per_chunk(seq_len)).collect();
        let mut losses = vec![0.0; pieces.len()];
        let mut own = Vec::new();
        for i in self.turns(pieces.len()) {
            let hidden = self.pruned.embed(&self.tokens(pieces[i]), seq_len)?;
            own.push((i, hidden, self.teacher.last(pieces[i])));
        }
        let hidden = own.iter_mut().map(|(_, hidden, _)| hidden).collect();
        self.student.run_with(values, hidden, seq_len);
        for (i, hidden, teacher) in own {
            let input = self.pruned.finish(hidden)?;
            losses[i] = self.heads.loss(input.view(), teacher.view());
        }
        self.ranks.sum(&mut losses);
        Ok(losses.into_iter().sum::<f64>() / (all.len() * seq_len) as f64)
    }
}

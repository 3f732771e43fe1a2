//! Tuning through the whole model: minimises the mean over tokens of `KL(p_dense ‖ p_sparse)`.

use super::{
    TuneSettings,
    adam::Step,
    distillation::Distillation,
    epochs::Orders,
    layer::Values,
    state,
    student::Student,
    teacher::{Teacher, pull},
    text::Text,
};
use crate::{Output, rows::Keep};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sparsellm_base::{Error, Event, Observer, Result, numerics_error};
use sparsellm_model::{Block, Model, segments_per_chunk};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use sparsellm_text::Segments;

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
    /// The text of the first epoch.
    pub segments: &'a Segments,
    /// That of the other epochs and the held-out text, as far as there is any; otherwise, the last
    /// eighth of `segments` is held out.
    pub more: &'a Segments,
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
    let TunePlan { pruned, dense, segments, more, settings, keep, ranks } = *plan;
    settings.validate()?;
    let Text { held_out, epochs } = Text::of(segments, more, settings.tune_epochs, observe)?;
    let mut run = Run {
        student: Student::new(blocks, settings.arithmetic, keep)?,
        heads: Distillation::new(pruned, dense, settings.arithmetic)?,
        held_out: Teacher::new(dense, held_out, None, ranks, observe)?,
        settings,
        seq_len: segments.seq_len,
        pruned,
        ranks,
    };
    let (mut best, mut report) = run.begin(done, output)?;
    let held_out = report.held_out.last().copied().unwrap_or_default();
    observe.notify(Event::Tuned { epoch: report.epochs, training: None, held_out })?;
    let folder = output.run_folder().to_path_buf();
    let matched = (settings.hidden_weight > 0.0).then_some(&*folder);
    let steps = |text: &Segments| text.count().div_ceil(settings.batch);
    let all = epochs.iter().map(steps).sum();
    let (mut orders, mut next) = (Orders::new(), 0);
    for (epoch, text) in (1..).zip(epochs) {
        let (order, first) = (orders.next(text.count()), next);
        next += steps(&text);
        if epoch <= report.epochs {
            continue; // done by the run that this one resumes
        }
        let tokens = text.tokens.len() as f64;
        let (mut training, mut teacher) =
            (0.0, Teacher::new(dense, text, matched, ranks, observe)?);
        for (i, batch) in (first..).zip(order.chunks(settings.batch)) {
            training += run.step(&mut teacher, batch, i, all)?;
            observe.notify(Event::Measured { what: "tuning", done: i + 1, of: all })?;
        }
        report.training.push(training / tokens);
        let values = run.student.rounded(&pruned.checkpoint)?;
        let held_out = run.held_out(&values)?;
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
    /// The held-out text.
    held_out: Teacher,
    settings: &'a TuneSettings,
    seq_len: usize,
    ranks: &'a dyn Communicator,
}

impl Run<'_> {
    /// The best parameters and the report so far: those of the pruned model, or those of the
    /// unfinished run that is resumed.
    fn begin(&mut self, done: Option<Value>, output: &Output) -> Result<(Vec<Values>, TuneReport)> {
        let mut best = self.student.rounded(&self.pruned.checkpoint)?;
        let Some(record) = done else {
            let loss = self.held_out(&best)?;
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

    /// Makes step `t` of `of` on a batch of the teacher's segments, and returns the sum of its tokens'
    /// losses.
    fn step(&mut self, teacher: &mut Teacher, batch: &[usize], t: usize, of: usize) -> Result<f64> {
        let scale = 1.0 / (batch.len() * self.seq_len) as f32;
        let pieces: Vec<&[usize]> = batch.chunks(segments_per_chunk(self.seq_len)).collect();
        let mut losses = vec![0.0; pieces.len()];
        for i in self.turns(pieces.len()) {
            losses[i] = self.add_gradient(teacher, pieces[i], scale)?;
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
        self.student.step(Step::new(t, of, self.settings.learning_rate, norm))?;
        Ok(sum)
    }

    /// The pieces of work, among so many, that this rank does.
    fn turns(&self, pieces: usize) -> impl Iterator<Item = usize> + use<> {
        (self.ranks.rank()..pieces).step_by(self.ranks.size())
    }

    /// Adds the gradient of the loss on some segments, times `scale`:
    /// `KL(p_dense ‖ p_sparse) + λ/L · Σ_l ‖h_l − ĥ_l‖² / ‖ĥ_l‖²`, summed over tokens, with the dense
    /// model's hidden states ĥ_l after L of the layers. Returns the sum of the divergences.
    fn add_gradient(
        &mut self,
        teacher: &mut Teacher,
        segments: &[usize],
        scale: f32,
    ) -> Result<f64> {
        let hidden = self.pruned.embed(&teacher.tokens(segments), self.seq_len)?;
        let dense = teacher.last(segments);
        let mut inputs = self.student.forward(hidden, self.seq_len);
        let last = inputs.pop().unwrap_or_else(|| Matrix::zeros(0, dense.cols));
        let input = self.pruned.finish(last.clone())?;
        let (loss, d) = self.heads.gradient(input.view(), dense.view(), scale);
        let d = self.pruned.finish_backward(&last, d)?;
        let lambda = self.settings.hidden_weight as f32;
        let weight = scale * lambda / teacher.matched().max(1) as f32;
        self.student.backward(inputs, d, self.seq_len, |layer, hidden, d| {
            if let Some(dense) = teacher.after(layer, segments)? {
                pull(hidden.view(), dense.view(), weight, d);
            }
            Ok(())
        })?;
        Ok(loss)
    }

    /// The mean divergence on the held-out text, with these values of the parameters.
    fn held_out(&self, values: &[Values]) -> Result<f64> {
        let (seq_len, teacher) = (self.seq_len, &self.held_out);
        let all: Vec<usize> = (0..teacher.count()).collect();
        let pieces: Vec<&[usize]> = all.chunks(segments_per_chunk(seq_len)).collect();
        let mut losses = vec![0.0; pieces.len()];
        let mut own = Vec::new();
        for i in self.turns(pieces.len()) {
            let hidden = self.pruned.embed(&teacher.tokens(pieces[i]), seq_len)?;
            own.push((i, hidden, teacher.last(pieces[i])));
        }
        let hidden = own.iter_mut().map(|(_, hidden, _)| hidden).collect();
        self.student.run_with(values, hidden, seq_len);
        for (i, hidden, dense) in own {
            let input = self.pruned.finish(hidden)?;
            losses[i] = self.heads.loss(input.view(), dense.view());
        }
        self.ranks.sum(&mut losses);
        Ok(losses.into_iter().sum::<f64>() / (all.len() * seq_len) as f64)
    }
}

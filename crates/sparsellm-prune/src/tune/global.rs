//! Tuning through the whole model: minimises the mean over tokens of `KL(p_dense ‖ p_sparse)`.

use super::{TuneSettings, adam::Step, distillation::Distillation, student::Student};
use crate::Output;
use rand_mt::Mt;
use serde::{Deserialize, Serialize};
use sparsellm_base::{Event, Observer, Result, numerics_error, usage_error};
use sparsellm_model::{Block, Model, segments_per_chunk};
use sparsellm_tensor::Matrix;
use sparsellm_text::Segments;
use std::ops::Range;

/// One of so many segments is held out.
const HELD_OUT: usize = 8;

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

/// A tuned model: the decoder layers that were kept.
pub struct Held {
    /// The layers, in order.
    pub blocks: Vec<Block>,
    /// What tuning did.
    pub report: TuneReport,
}

/// Tunes what is kept of the pruned model `pruned` until it says what the `dense` one says, on
/// `segments`, of which the last eighth is held out. The parameters that are best there are kept.
///
/// # Errors
/// If the models do not belong together, weights cannot be read, the loss is not finite, or the
/// observer returns an error.
pub fn tune_model(
    pruned: &Model,
    dense: &Model,
    segments: &Segments,
    settings: &TuneSettings,
    seed: u64,
    observe: &mut Observer,
) -> Result<Held> {
    settings.validate()?;
    let count = segments.count();
    if count < 2 {
        return usage_error!("tuning needs at least 2 segments of `calibration` text");
    }
    let split = count - count.div_ceil(HELD_OUT).min(count - 1);
    let mut run = Run {
        student: Student::load(pruned)?,
        heads: Distillation::new(pruned, dense)?,
        teacher: last_hidden(dense, segments, observe)?,
        pruned,
        segments,
    };
    let (mut best, mut report) = run.begin(split..count)?;
    observe.notify(Event::Tuned { epoch: 0, training: None, held_out: report.held_out[0] })?;
    let steps = split.div_ceil(settings.batch);
    let all = steps * settings.tune_epochs;
    let mut order: Vec<usize> = (0..split).collect();
    let mut rng = Mt::new(seed as u32);
    for epoch in 1..=settings.tune_epochs {
        shuffle(&mut order, &mut rng);
        let mut training = 0.0;
        for (i, batch) in order.chunks(settings.batch).enumerate() {
            training += run.step(batch, (epoch - 1) * steps + i, all, settings.learning_rate)?;
            observe.notify(Event::Measured {
                what: "tuning",
                done: (epoch - 1) * steps + i + 1,
                of: all,
            })?;
        }
        report.training.push(training / (split * segments.seq_len) as f64);
        let values = run.student.rounded()?;
        let held_out = run.held_out(&values, split..count)?;
        observe.notify(Event::Tuned {
            epoch,
            training: report.training.last().copied(),
            held_out,
        })?;
        if held_out < report.held_out[report.kept_epoch] {
            (best, report.kept_epoch) = (values, epoch);
        }
        report.held_out.push(held_out);
        report.epochs = epoch;
    }
    let blocks = (0..best.len()).map(|index| run.student.block_with(&best, index)).collect();
    Ok(Held { blocks, report })
}

/// Writes the parameters of tuned layers.
///
/// # Errors
/// If the output cannot be written.
pub fn write_tuned(blocks: &mut [Block], output: &mut Output) -> Result<()> {
    for block in blocks {
        for linear in block.linears() {
            output.write(&linear.slot, &linear.weight.data)?;
        }
        for vector in block.vectors_mut() {
            let stored: Vec<f32> = vector.values.iter().map(|v| v - vector.plus).collect();
            output.write(&vector.slot, &stored)?;
        }
    }
    Ok(())
}

/// Everything that a step needs.
struct Run<'a> {
    pruned: &'a Model,
    student: Student<'a>,
    heads: Distillation,
    /// The inputs of the dense model's head, `[tokens, d]`.
    teacher: Matrix,
    segments: &'a Segments,
}

impl Run<'_> {
    /// The parameters as they are, and the report so far.
    fn begin(&mut self, held_out: Range<usize>) -> Result<(Vec<Vec<Vec<f32>>>, TuneReport)> {
        let values = self.student.rounded()?;
        let loss = self.held_out(&values, held_out)?;
        let report =
            TuneReport { epochs: 0, kept_epoch: 0, held_out: vec![loss], training: Vec::new() };
        Ok((values, report))
    }

    /// Makes step `t` of `of` on a batch of segments, and returns the sum of its tokens' losses.
    fn step(&mut self, batch: &[usize], t: usize, of: usize, rate: f64) -> Result<f64> {
        let seq_len = self.segments.seq_len;
        let scale = 1.0 / (batch.len() * seq_len) as f32;
        let mut sum = 0.0;
        for part in batch.chunks(segments_per_chunk(seq_len)) {
            let (tokens, teacher) = self.rows(part);
            let hidden = self.pruned.embed(&tokens, seq_len)?;
            let mut inputs = self.student.forward(hidden, seq_len);
            let Some(last) = inputs.pop() else { continue };
            let input = self.pruned.finish(last.clone())?;
            let (loss, d) = self.heads.gradient(input.view(), teacher.view(), scale);
            sum += loss;
            let d = self.pruned.finish_backward(&last, d)?;
            self.student.backward(inputs, d, seq_len);
        }
        let norm = self.student.gradient_norm();
        if !(sum.is_finite() && norm.is_finite()) {
            return numerics_error!(
                "the loss of tuning is not finite at step {}; lower `learning_rate`",
                t + 1
            );
        }
        self.student.step(Step::new(t, of, rate, norm));
        Ok(sum)
    }

    /// The tokens of some segments, and the dense model's last hidden states.
    fn rows(&self, segments: &[usize]) -> (Vec<u32>, Matrix) {
        let (seq_len, d) = (self.segments.seq_len, self.teacher.cols);
        let (mut tokens, mut hidden) = (Vec::new(), Vec::new());
        for segment in segments {
            let rows = segment * seq_len..(segment + 1) * seq_len;
            tokens.extend_from_slice(&self.segments.tokens[rows.clone()]);
            hidden.extend_from_slice(self.teacher.rows(rows).data);
        }
        let teacher = Matrix::new(tokens.len(), d, hidden);
        (tokens, teacher)
    }

    /// The mean loss on held-out segments, with these values of the parameters.
    fn held_out(&self, values: &[Vec<Vec<f32>>], segments: Range<usize>) -> Result<f64> {
        let seq_len = self.segments.seq_len;
        let tokens = segments.start * seq_len..segments.end * seq_len;
        let mut hidden = self.pruned.embed(&self.segments.tokens[tokens.clone()], seq_len)?;
        self.student.run_with(values, &mut hidden, seq_len);
        let input = self.pruned.finish(hidden)?;
        let loss = self.heads.loss(input.view(), self.teacher.rows(tokens.clone()));
        Ok(loss / tokens.len() as f64)
    }
}

/// The inputs of a model's head on all segments.
fn last_hidden(model: &Model, segments: &Segments, observe: &mut Observer) -> Result<Matrix> {
    let mut hidden = model.embed(&segments.tokens, segments.seq_len)?;
    let of = model.shape().layers;
    for index in 0..of {
        model.block(index)?.run(&mut hidden, segments.seq_len);
        observe.notify(Event::Measured { what: "dense model", done: index + 1, of })?;
    }
    model.finish(hidden)
}

/// Fisher and Yates's shuffle.
fn shuffle(order: &mut [usize], rng: &mut Mt) {
    for i in (1..order.len()).rev() {
        order.swap(i, (rng.next_u32() as usize) % (i + 1));
    }
}

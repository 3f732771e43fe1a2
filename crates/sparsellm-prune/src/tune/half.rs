//! Tuning of one half of a block: minimises `‖T − half-block(h)‖²` over the calibration tokens,
//! relative to what the half has to add to the residual stream, `‖T − h‖²`.

use super::{
    TuneSettings,
    adam::Step,
    epochs::{Orders, Split},
    layer::Layer,
};
use crate::record::{HalfReport, relative_error};
use crate::rows::Keep;
use sparsellm_base::{Result, numerics_error};
use sparsellm_checkpoint::Checkpoint;
use sparsellm_model::{Block, HalfInput, Part, Positions, chunks};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use std::ops::Range;

/// The half-block that is tuned, and what it is tuned on.
#[derive(Clone, Copy)]
pub struct HalfTask<'a> {
    /// Which half.
    pub part: Part,
    /// What the pruned model gives it, on this rank's segments.
    pub input: HalfInput<'a>,
    /// T: what the residual stream should be after it.
    pub target: &'a Matrix,
    /// The tokens of a segment.
    pub seq_len: usize,
    /// The options.
    pub settings: &'a TuneSettings,
    /// How Adam's moments are kept.
    pub keep: Keep<'a>,
    /// The checkpoint that the parameters will be stored in.
    pub checkpoint: &'a Checkpoint,
    /// The ranks, each with its segments.
    pub ranks: &'a dyn Communicator,
}

/// Tunes what is kept of a half-block, and leaves it with the parameters that are best on held-out
/// segments.
///
/// # Errors
/// If the loss is not finite, or a parameter's tensor is missing.
pub fn tune_half(block: &mut Block, task: &HalfTask) -> Result<HalfReport> {
    let settings = task.settings;
    let own = task.own();
    let split = Split::of(own.all);
    let mut layer = Layer::new(block.clone(), Some(task.part), settings.arithmetic, task.keep)?;
    let mut best = layer.rounded(task.checkpoint)?;
    let held_out_energy = task.energy(&split.held_out, &own);
    let error = |block: &Block| {
        relative_error(task.squared_error(block, &split.held_out, &own), held_out_energy)
    };
    let held_out = error(&layer.with(&best));
    let mut report = HalfReport { kept_epoch: 0, held_out: vec![held_out] };
    let energy = task.energy(&(0..split.training), &own) / split.training as f64;
    if energy <= 0.0 || !held_out.is_finite() {
        return Ok(report); // there is nothing to come closer to
    }
    let mut orders = Orders::new();
    let steps = split.training.div_ceil(settings.batch);
    for epoch in 0..settings.tune_epochs {
        for (i, batch) in orders.next(split.training).chunks(settings.batch).enumerate() {
            let scale = 1.0 / (energy * batch.len() as f64);
            for segment in batch.iter().filter_map(|segment| own.local(*segment)) {
                task.add_gradient(&mut layer, segment, scale as f32);
            }
            layer.sum(task.ranks);
            let norm = layer.squared_gradient().sqrt();
            if !norm.is_finite() {
                return numerics_error!(
                    "the gradient of tuning a block is not finite; lower `block_learning_rate`"
                );
            }
            let (step, all) = (epoch * steps + i, steps * settings.tune_epochs);
            layer.step(Step::new(step, all, settings.block_learning_rate, norm))?;
        }
        let values = layer.rounded(task.checkpoint)?;
        let held_out = error(&layer.with(&values));
        if held_out < report.held_out[report.kept_epoch] {
            (best, report.kept_epoch) = (values, epoch + 1);
        }
        report.held_out.push(held_out);
    }
    *block = layer.with(&best);
    Ok(report)
}

/// Which of all segments are this rank's.
struct Own {
    all: usize,
    mine: Range<usize>,
}

impl Own {
    /// The place among this rank's segments of one of all, if it is there.
    fn local(&self, segment: usize) -> Option<usize> {
        self.mine.contains(&segment).then(|| segment - self.mine.start)
    }
}

impl HalfTask<'_> {
    fn own(&self) -> Own {
        let mine = self.target.rows / self.seq_len;
        let counts = self.ranks.gather_numbers(mine as f64);
        let before: f64 = counts.iter().take(self.ranks.rank()).sum();
        let first = before as usize;
        Own { all: counts.iter().sum::<f64>() as usize, mine: first..first + mine }
    }

    /// The rows of one of this rank's segments.
    fn rows(&self, segment: usize) -> Range<usize> {
        segment * self.seq_len..(segment + 1) * self.seq_len
    }

    /// The sum of a number over segments, of all ranks: in the order of the segments, so that it
    /// is the same for any number of ranks.
    fn sum(&self, segments: &Range<usize>, own: &Own, of: impl Fn(usize) -> f64) -> f64 {
        let mut each: Vec<f64> =
            segments.clone().map(|segment| own.local(segment).map_or(0.0, &of)).collect();
        self.ranks.sum(&mut each);
        each.into_iter().sum()
    }

    /// Adds the gradient of one segment's squared error, times `scale`.
    fn add_gradient(&self, layer: &mut Layer, segment: usize, scale: f32) {
        let rows = self.rows(segment);
        let [stream, read, target] = [self.input.stream, self.input.read, self.target]
            .map(|all| all.rows(rows.clone()).to_matrix());
        let loss = |mut out: Matrix| {
            let pairs = out.data.iter_mut().zip(&target.data);
            pairs.for_each(|(out, target)| *out = 2.0 * scale * (*out - target));
            out
        };
        let input = HalfInput { stream: &stream, read: &read };
        let Layer { block, gradients, .. } = layer;
        let at = Positions::segments(self.seq_len);
        block.half_backward(self.part, input, at, loss, gradients);
    }

    /// `‖T − half-block(h)‖²` on some segments.
    fn squared_error(&self, block: &Block, segments: &Range<usize>, own: &Own) -> f64 {
        let of = |segment| {
            let rows = self.rows(segment);
            let [stream, read] =
                [self.input.stream, self.input.read].map(|all| all.rows(rows.clone()).to_matrix());
            let input = HalfInput { stream: &stream, read: &read };
            let out = block.run_half(self.part, input, Positions::segments(self.seq_len));
            squared_distance(&out.data, self.target.rows(rows).data)
        };
        self.sum(segments, own, of)
    }

    /// `‖T − h‖²` on some segments.
    fn energy(&self, segments: &Range<usize>, own: &Own) -> f64 {
        let of = |segment| {
            let rows = self.rows(segment);
            squared_distance(self.target.rows(rows.clone()).data, self.input.stream.rows(rows).data)
        };
        self.sum(segments, own, of)
    }
}

/// Runs one half of a block on whole segments, some at a time, and returns the residual stream
/// after it.
pub fn run_half(block: &Block, part: Part, input: HalfInput, seq_len: usize) -> Matrix {
    let mut out = Vec::with_capacity(input.stream.data.len());
    for (stream, read) in chunks(input.stream, seq_len).zip(chunks(input.read, seq_len)) {
        let input = HalfInput { stream: &stream, read: &read };
        out.extend(block.run_half(part, input, Positions::segments(seq_len)).data);
    }
    Matrix::new(input.stream.rows, input.stream.cols, out)
}

/// `‖a − b‖²`, summed in f64.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let pieces = a.chunks(1 << 12).zip(b.chunks(1 << 12));
    let squares = |(a, b): (&[f32], &[f32])| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    pieces.map(squares).sum()
}

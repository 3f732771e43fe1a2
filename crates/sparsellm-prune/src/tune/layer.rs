//! A decoder layer while it is tuned: its parameters, their gradients and Adam's moments.

use super::adam::Step;
use crate::rows::{Keep, Rows};
use sparsellm_base::Result;
use sparsellm_checkpoint::Checkpoint;
use sparsellm_model::{Block, BlockGradients, Part};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Arithmetic;
use std::ops::Range;

/// The values of a layer's parameters, as [`Block::update`] numbers them.
pub type Values = Vec<Vec<f32>>;

/// A decoder layer that is tuned.
pub struct Layer {
    pub block: Block,
    pub gradients: BlockGradients,
    /// Adam's moments, a row of two for each value of the parameters.
    moments: Rows,
}

/// Values that are moved at once: what is kept in a file is read and written in such pieces.
const PIECE: usize = 1 << 13;

impl Layer {
    /// Prepares a layer to be tuned. Linears that nothing was pruned from stay as they are and, if
    /// `part` is given, so do those of the other half. Gradients are computed in this arithmetic.
    ///
    /// # Errors
    /// If the moments are to be kept in a file that cannot be created.
    pub fn new(
        block: Block,
        part: Option<Part>,
        arithmetic: Arithmetic,
        keep: Keep,
    ) -> Result<Layer> {
        let mut gradients = BlockGradients::zeros(&block, arithmetic);
        gradients.only_pruned(&block, part);
        let moments = Rows::new(gradients.values().map(Vec::len).sum(), 2, keep)?;
        Ok(Layer { block, gradients, moments })
    }

    /// The squared norm of all gradients.
    pub fn squared_gradient(&self) -> f64 {
        let squares = |v: &Vec<f64>| v.iter().map(|g| g * g).sum::<f64>();
        self.gradients.values().map(squares).sum()
    }

    /// Adds up the ranks' gradients.
    pub fn sum(&mut self, ranks: &dyn Communicator) {
        self.gradients.values_mut().for_each(|values| ranks.sum(values));
    }

    /// Moves all parameters that have gradients, and sets those to zero.
    ///
    /// # Errors
    /// If the moments' file cannot be read or written.
    pub fn step(&mut self, step: Step) -> Result<()> {
        let Layer { block, gradients, moments } = self;
        let (mut first, mut result) = (0, Ok(()));
        block.update(gradients, |_, values, gradient| {
            for (values, gradient) in values.chunks_mut(PIECE).zip(gradient.chunks(PIECE)) {
                let rows = first..first + values.len();
                first = rows.end;
                if result.is_ok() {
                    result = moments.with(rows, |moments| step.apply(moments, values, gradient));
                }
            }
        });
        gradients.clear();
        result
    }

    /// The layer's values as they will be stored in `checkpoint`. A kept weight that its number
    /// type rounds to zero becomes the type's smallest number instead, so that masks stay.
    ///
    /// # Errors
    /// If a parameter's tensor is missing.
    pub fn rounded(&self, checkpoint: &Checkpoint) -> Result<Values> {
        let mut block = self.block.clone();
        for linear in block.linears_mut() {
            let tensor = linear.slot.tensor.clone();
            let mut weight = linear.weight.edit();
            let exact = weight.data.clone();
            checkpoint.round(&tensor, &mut weight.data)?;
            let smallest = checkpoint.info(&tensor)?.dtype.float().map_or(0.0, |f| f.smallest());
            for (w, exact) in weight.data.iter_mut().zip(exact) {
                if *w == 0.0 && exact != 0.0 {
                    *w = smallest.copysign(exact);
                }
            }
        }
        for mut vector in block.vectors_mut() {
            let mut stored = vector.stored();
            checkpoint.round(&vector.slot.tensor, &mut stored)?;
            vector.set_stored(stored);
        }
        Ok(block.values(&self.gradients))
    }

    /// The layer with these values of its parameters.
    pub fn with(&self, values: &Values) -> Block {
        let mut block = self.block.clone();
        block.update(&self.gradients, |number, own, _| own.copy_from_slice(&values[number]));
        block
    }

    /// The pieces in which the moments are saved.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let all = self.gradients.values().map(Vec::len).sum();
        (0..all).step_by(PIECE).map(move |first| first..(first + PIECE).min(all))
    }

    /// Passes `write` the parameters and their moments.
    ///
    /// # Errors
    /// Those of `write`, or if the moments' file cannot be read.
    pub fn save(&mut self, write: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.block.values(&self.gradients).iter().try_for_each(|values| write(values))?;
        self.pieces().try_for_each(|rows| write(self.moments.read(rows)?))
    }

    /// Takes the parameters and their moments back, in the order of [`save`](Self::save).
    ///
    /// # Errors
    /// Those of `read`, or if the moments' file cannot be written.
    pub fn restore(&mut self, read: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        let mut values = self.block.values(&self.gradients);
        values.iter_mut().try_for_each(|values| read(values))?;
        self.block = self.with(&values);
        self.pieces().try_for_each(|rows| self.moments.with(rows, &mut *read)?)
    }
}

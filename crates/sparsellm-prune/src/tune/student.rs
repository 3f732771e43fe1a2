//! The pruned model while it is tuned: its decoder layers in memory, with gradients.

use super::{
    adam::Step,
    layer::{Layer, Values},
};
use crate::rows::Keep;
use rayon::prelude::*;
use sparsellm_base::Result;
use sparsellm_checkpoint::Checkpoint;
use sparsellm_model::{Block, Positions};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::{Arithmetic, Matrix};

/// The pruned model's decoder layers.
pub struct Student {
    layers: Vec<Layer>,
}

impl Student {
    /// Prepares pruned decoder layers to be tuned. Gradients are computed in this arithmetic, and
    /// Adam's moments are kept as `keep` says.
    ///
    /// # Errors
    /// If the moments are to be kept in files that cannot be created.
    pub fn new(blocks: Vec<Block>, arithmetic: Arithmetic, keep: Keep) -> Result<Self> {
        let layer = |block| Layer::new(block, None, arithmetic, keep);
        Ok(Student { layers: blocks.into_iter().map(layer).collect::<Result<_>>()? })
    }

    /// The inputs of each layer, and the last one's output, for segments whose embedding is
    /// `hidden`.
    pub fn forward(&self, hidden: Matrix, seq_len: usize) -> Vec<Matrix> {
        let mut all = vec![hidden];
        for layer in &self.layers {
            let mut next = all[all.len() - 1].clone();
            layer.block.run(&mut next, seq_len);
            all.push(next);
        }
        all
    }

    /// Adds the gradients, given the layers' inputs and the gradient `d` with respect to the
    /// last one's output. `between` is called with each layer before the last, the hidden states
    /// after it and their gradient so far, to add to the gradient.
    ///
    /// # Errors
    /// Those of `between`.
    pub fn backward(
        &mut self,
        mut inputs: Vec<Matrix>,
        mut d: Matrix,
        seq_len: usize,
        mut between: impl FnMut(usize, &Matrix, &mut Matrix) -> Result<()>,
    ) -> Result<()> {
        let at = Positions::segments(seq_len);
        inputs.truncate(self.layers.len());
        for (index, layer) in self.layers.iter_mut().enumerate().rev() {
            let Some(hidden) = inputs.pop() else { break };
            d = layer.block.backward(&hidden, at, d, &mut layer.gradients);
            if let Some(before) = index.checked_sub(1) {
                between(before, &hidden, &mut d)?;
            }
        }
        Ok(())
    }

    /// Adds up the ranks' gradients.
    pub fn sum_gradients(&mut self, ranks: &dyn Communicator) {
        self.layers.iter_mut().for_each(|layer| layer.sum(ranks));
    }

    /// The norm of all gradients.
    pub fn gradient_norm(&self) -> f64 {
        let all: Vec<f64> = self.layers.par_iter().map(Layer::squared_gradient).collect();
        all.into_iter().sum::<f64>().sqrt()
    }

    /// Moves all parameters, and sets the gradients to zero.
    ///
    /// # Errors
    /// If the moments' files cannot be read or written.
    pub fn step(&mut self, step: Step) -> Result<()> {
        self.layers.par_iter_mut().try_for_each(|layer| layer.step(step))
    }

    /// Passes `write` the parameters and their moments, layer by layer.
    ///
    /// # Errors
    /// Those of `write`, or if the moments' files cannot be read.
    pub fn save(&mut self, write: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.save(write))
    }

    /// Takes the parameters and their moments back, in the order of [`save`](Self::save).
    ///
    /// # Errors
    /// Those of `read`, or if the moments' files cannot be written.
    pub fn restore(&mut self, read: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.restore(read))
    }

    /// The values of all parameters, by layer, as they will be stored in `checkpoint`.
    ///
    /// # Errors
    /// If a parameter's tensor is missing.
    pub fn rounded(&self, checkpoint: &Checkpoint) -> Result<Vec<Values>> {
        self.layers.iter().map(|layer| layer.rounded(checkpoint)).collect()
    }

    /// Runs some pieces of text through the layers with other values of their parameters.
    pub fn run_with(&self, values: &[Values], mut pieces: Vec<&mut Matrix>, seq_len: usize) {
        for index in 0..self.layers.len() {
            let block = self.block_with(values, index);
            pieces.iter_mut().for_each(|hidden| block.run(hidden, seq_len));
        }
    }

    /// Layer `index` with other values of its parameters.
    pub fn block_with(&self, values: &[Values], index: usize) -> Block {
        self.layers[index].with(&values[index])
    }
}

//! A decoder layer while it is tuned: its parameters, their gradients and Adam's moments.

use super::adam::{Moments, Step};
use sparsellm_base::Result;
use sparsellm_checkpoint::Checkpoint;
use sparsellm_model::{Block, BlockGradients, Part};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Arithmetic;

/// The values of a layer's parameters, as [`Block::update`] numbers them.
pub type Values = Vec<Vec<f32>>;

/// A decoder layer that is tuned.
pub struct Layer {
    pub block: Block,
    pub gradients: BlockGradients,
    moments: Vec<Moments>,
}

impl Layer {
    /// Prepares a layer to be tuned. Linears that nothing was pruned from stay as they are and, if
    /// `part` is given, so do those of the other half. Gradients are computed in this arithmetic.
    pub fn new(block: Block, part: Option<Part>, arithmetic: Arithmetic) -> Layer {
        let mut gradients = BlockGradients::zeros(&block, arithmetic);
        gradients.only_pruned(&block, part);
        let moments = vec![Moments::default(); gradients.values().count()];
        Layer { block, gradients, moments }
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
    pub fn step(&mut self, step: Step) {
        let Layer { block, gradients, moments } = self;
        block.update(gradients, |number, values, gradient| {
            step.apply(&mut moments[number], values, gradient);
        });
        gradients.clear();
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

    /// Passes `write` the parameters, each with its moments.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn save(&self, write: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        for (values, moments) in self.block.values(&self.gradients).iter().zip(&self.moments) {
            write(values)?;
            moments.parts().into_iter().try_for_each(&mut *write)?;
        }
        Ok(())
    }

    /// Takes the parameters and their moments back, in the order of [`save`](Self::save).
    ///
    /// # Errors
    /// Those of `read`.
    pub fn restore(&mut self, read: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        let mut values = self.block.values(&self.gradients);
        for (values, moments) in values.iter_mut().zip(&mut self.moments) {
            read(values)?;
            moments.parts_mut(values.len()).into_iter().try_for_each(&mut *read)?;
        }
        self.block = self.with(&values);
        Ok(())
    }
}

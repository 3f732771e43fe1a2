//! The pruned model while it is tuned: its decoder layers in memory, with gradients.

use super::adam::{Moments, Step};
use sparsellm_base::Result;
use sparsellm_checkpoint::Checkpoint;
use sparsellm_model::{Block, BlockGradients, Model, Positions};
use sparsellm_tensor::{Matrix, decode, encode};

/// One decoder layer that is tuned.
struct Layer {
    block: Block,
    gradients: BlockGradients,
    moments: Vec<Moments>,
}

/// The values of all parameters: by layer, then as [`Block::update`] numbers them.
pub type Values = Vec<Vec<Vec<f32>>>;

/// The pruned model's decoder layers.
pub struct Student<'a> {
    model: &'a Model,
    layers: Vec<Layer>,
}

impl<'a> Student<'a> {
    /// Reads all decoder layers. Weights that are zero stay zero.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn load(model: &'a Model) -> Result<Self> {
        let layer = |index| {
            let block = model.block(index)?;
            let gradients = BlockGradients::zeros(&block);
            let moments = vec![Moments::default(); gradients.values().count()];
            Ok(Layer { block, gradients, moments })
        };
        let layers = (0..model.shape().layers).map(layer).collect::<Result<_>>()?;
        Ok(Student { model, layers })
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
    /// last one's output.
    pub fn backward(&mut self, mut inputs: Vec<Matrix>, mut d: Matrix, seq_len: usize) {
        let at = Positions::segments(seq_len);
        inputs.truncate(self.layers.len());
        for layer in self.layers.iter_mut().rev() {
            let Some(hidden) = inputs.pop() else { return };
            d = layer.block.backward(&hidden, at, d, &mut layer.gradients);
        }
    }

    /// The norm of all gradients.
    pub fn gradient_norm(&self) -> f64 {
        let values = self.layers.iter().flat_map(|layer| layer.gradients.values());
        let squares = |v: &Vec<f32>| v.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        values.map(squares).sum::<f64>().sqrt()
    }

    /// Moves all parameters, and sets the gradients to zero.
    pub fn step(&mut self, step: Step) {
        for Layer { block, gradients, moments } in &mut self.layers {
            block.update(gradients, |number, values, gradient| {
                step.apply(&mut moments[number], values, gradient);
            });
            gradients.clear();
        }
    }

    /// Passes `write` the parameters and their moments, layer by layer.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn save(&self, write: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        for Layer { block, gradients, moments } in &self.layers {
            for (values, moments) in block.values(gradients).iter().zip(moments) {
                write(values)?;
                moments.parts().into_iter().try_for_each(&mut *write)?;
            }
        }
        Ok(())
    }

    /// Takes the parameters and their moments back, in the order of [`save`](Self::save).
    ///
    /// # Errors
    /// Those of `read`.
    pub fn restore(&mut self, read: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        for Layer { block, gradients, moments } in &mut self.layers {
            let mut values = block.values(gradients);
            for (values, moments) in values.iter_mut().zip(moments) {
                read(values)?;
                moments.parts_mut(values.len()).into_iter().try_for_each(&mut *read)?;
            }
            block.update(gradients, |number, own, _| own.copy_from_slice(&values[number]));
        }
        Ok(())
    }

    /// The values of all parameters, by layer, rounded to the types that they are stored in.
    ///
    /// # Errors
    /// If a parameter's tensor is missing.
    pub fn rounded(&self) -> Result<Values> {
        let checkpoint = &self.model.checkpoint;
        self.layers
            .iter()
            .map(|layer| {
                let mut block = layer.block.clone();
                round(&mut block, checkpoint)?;
                Ok(block.values(&layer.gradients))
            })
            .collect()
    }

    /// Runs segments through the layers with other values of their parameters.
    pub fn run_with(&self, values: &Values, hidden: &mut Matrix, seq_len: usize) {
        for index in 0..self.layers.len() {
            self.block_with(values, index).run(hidden, seq_len);
        }
    }

    /// Layer `index` with other values of its parameters.
    pub fn block_with(&self, values: &Values, index: usize) -> Block {
        let layer = &self.layers[index];
        let mut block = layer.block.clone();
        block.update(&layer.gradients, |number, own, _| {
            own.copy_from_slice(&values[index][number]);
        });
        block
    }
}

/// Rounds a block's parameters to the types that they are stored in.
fn round(block: &mut Block, checkpoint: &Checkpoint) -> Result<()> {
    let as_stored = |tensor: &str, values: &mut [f32]| -> Result<()> {
        if let Some(dtype) = checkpoint.info(tensor)?.dtype.float() {
            let mut bytes = vec![0; values.len() * dtype.size()];
            encode(values, dtype, &mut bytes);
            decode(&bytes, dtype, values);
        }
        Ok(())
    };
    for linear in block.linears_mut() {
        let tensor = linear.slot.tensor.clone();
        as_stored(&tensor, &mut linear.weight.edit().data)?;
    }
    for vector in block.vectors_mut() {
        let plus = vector.plus;
        vector.values.iter_mut().for_each(|v| *v -= plus);
        as_stored(&vector.slot.tensor, vector.values)?;
        vector.values.iter_mut().for_each(|v| *v += plus);
    }
    Ok(())
}

//! The parameters of a block that tuning moves: kept weights, biases and norms.

use super::BlockGradients;
use crate::{Block, Linear, Norm, Stored};
use sparsellm_checkpoint::Slot;

/// A bias, or a norm's scale or offset.
pub struct VectorParameter<'a> {
    /// Where it is stored.
    pub slot: Slot,
    /// What is added to the stored values.
    pub plus: f32,
    /// The values.
    pub values: &'a mut Vec<f32>,
}

impl VectorParameter<'_> {
    /// The values as they are stored.
    pub fn stored(&self) -> Vec<f32> {
        self.values.iter().map(|v| v - self.plus).collect()
    }

    /// Takes values as they are stored.
    pub fn set_stored(&mut self, stored: Vec<f32>) {
        *self.values = stored;
        self.values.iter_mut().for_each(|v| *v += self.plus);
    }
}

impl Block {
    /// The norms in the order of the forward pass: of the attention's input, its query and key
    /// heads, its output and its sum; of the network's input, its output and its sum.
    pub fn norms(&self) -> [Option<&Norm>; 8] {
        let (a, f) = (&self.attention_norms, &self.ffn_norms);
        let (q, k) = (&self.attention.q_norm, &self.attention.k_norm);
        [&a.input, q, k, &a.output, &a.sum, &f.input, &f.output, &f.sum].map(Option::as_ref)
    }

    /// The norms, mutably, in the same order.
    pub fn norms_mut(&mut self) -> [Option<&mut Norm>; 8] {
        let (a, f) = (&mut self.attention_norms, &mut self.ffn_norms);
        let (q, k) = (&mut self.attention.q_norm, &mut self.attention.k_norm);
        [&mut a.input, q, k, &mut a.output, &mut a.sum, &mut f.input, &mut f.output, &mut f.sum]
            .map(Option::as_mut)
    }

    /// Changes every parameter: `change` receives the parameter's number, its values and their
    /// gradients. The numbers, and the order of a weight's kept values, are those of
    /// [`BlockGradients::values`].
    pub fn update(
        &mut self,
        gradients: &BlockGradients,
        mut change: impl FnMut(usize, &mut [f32], &[f64]),
    ) {
        let mut number = 0;
        for (linear, gradient) in self.linears_mut().into_iter().zip(&gradients.linears) {
            let mut values = gradient.kept.gather(&linear.weight);
            change(number, &mut values, &gradient.weight);
            gradient.kept.scatter(&values, &mut linear.weight.edit());
            if let Some(bias) = &mut linear.bias {
                change(number + 1, bias, &gradient.bias);
            }
            number += 2;
        }
        for (norm, gradient) in self.norms_mut().into_iter().zip(&gradients.norms) {
            let [weight, bias] = norm.map_or([None, None], Norm::vectors_mut);
            if let Some((weight, _)) = weight {
                change(number, weight, &gradient.weight);
            }
            if let Some((bias, _)) = bias {
                change(number + 1, bias, &gradient.bias);
            }
            number += 2;
        }
    }

    /// The values of every parameter, as [`update`](Self::update) numbers them; empty for those
    /// that there are not.
    pub fn values(&self, gradients: &BlockGradients) -> Vec<Vec<f32>> {
        let linears = self.linears().into_iter().zip(&gradients.linears).flat_map(|(linear, g)| {
            [g.kept.gather(&linear.weight), linear.bias.clone().unwrap_or_default()]
        });
        let norms = self.norms().into_iter().flat_map(|norm| match norm {
            None => [Vec::new(), Vec::new()],
            Some(Norm::Rms { weight, .. }) => [weight.clone(), Vec::new()],
            Some(Norm::Layer { weight, bias, .. }) => {
                [weight.clone().unwrap_or_default(), bias.clone().unwrap_or_default()]
            }
        });
        linears.chain(norms).collect()
    }

    /// The parameters beside the weights of linears, with the places where they are stored.
    pub fn vectors_mut(&mut self) -> Vec<VectorParameter<'_>> {
        let Block { attention, ffn, attention_norms: a, ffn_norms: f, .. } = self;
        let attention_linears =
            [&mut attention.q, &mut attention.k, &mut attention.v, &mut attention.o];
        let linears = attention_linears.into_iter().chain(ffn.linears_mut());
        let mut all: Vec<_> = linears.filter_map(bias).collect();
        let norms = [&mut attention.q_norm, &mut attention.k_norm, &mut a.input, &mut a.output];
        let more = [&mut a.sum, &mut f.input, &mut f.output, &mut f.sum];
        for norm in norms.into_iter().chain(more).flatten() {
            for (values, stored) in norm.vectors_mut().into_iter().flatten() {
                let slot = Slot::whole(stored.tensor.clone(), values.len(), 1);
                all.push(VectorParameter { slot, plus: stored.plus, values });
            }
        }
        all
    }
}

/// A linear's bias, which is stored beside its weights.
fn bias(linear: &mut Linear) -> Option<VectorParameter<'_>> {
    let values = linear.bias.as_mut()?;
    let stem = linear.slot.tensor.strip_suffix("weight").unwrap_or(&linear.slot.tensor);
    let slot =
        Slot { tensor: format!("{stem}bias"), cols: 1, transposed: false, ..linear.slot.clone() };
    Some(VectorParameter { slot, plus: 0.0, values })
}

impl Norm {
    /// The scale and the offset, as far as there are any, with the places where they are stored.
    fn vectors_mut(&mut self) -> [Option<(&mut Vec<f32>, &Stored)>; 2] {
        match self {
            Norm::Rms { weight, stored, .. } => [Some((weight, stored)), None],
            Norm::Layer { weight, bias, stored: [scale, offset], .. } => {
                [weight.as_mut().map(|w| (w, &*scale)), bias.as_mut().map(|b| (b, &*offset))]
            }
        }
    }
}

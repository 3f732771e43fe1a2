//! The head: what turns its input into logits.

use rayon::prelude::*;
use sparsellm_base::Result;
use sparsellm_model::Model;
use sparsellm_tensor::{Arithmetic, Matrix, View, exp_sum, largest, softcap};
use std::{ops::Range, sync::Arc};

/// Tokens whose logits exist at once.
pub const TOKENS: usize = 256;

/// What turns the head's input into logits.
pub struct Head {
    /// `[vocabulary, d]`.
    pub(super) table: Arc<Matrix>,
    /// The bound of the logits, if they have one.
    pub softcap: Option<f32>,
    arithmetic: Arithmetic,
}

impl Head {
    /// Reads a model's head, whose products are to be computed in this arithmetic.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(model: &Model, arithmetic: Arithmetic) -> Result<Head> {
        let table = Arc::new(model.head_rows(0..model.shape().vocabulary)?);
        Ok(Head { table, softcap: model.logit_softcap(), arithmetic })
    }

    /// The logits of some tokens, `[tokens, vocabulary]`.
    pub fn logits(&self, input: View) -> Matrix {
        let mut logits = self.arithmetic.matmul_nt(input, self.table.view());
        if let Some(cap) = self.softcap {
            logits.data.par_chunks_mut(self.table.rows).for_each(|row| softcap(row, cap));
        }
        logits
    }

    /// The gradient with respect to the input, `[tokens, d]`, given that with respect to the
    /// logits.
    pub fn input_gradient(&self, d: View) -> Matrix {
        self.arithmetic.matmul(d, self.table.view())
    }
}

/// The tiles of so many tokens.
pub fn tiles(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tokens).step_by(TOKENS).map(move |first| first..(first + TOKENS).min(tokens))
}

/// `ln Σ eˣ`.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let max = largest(row);
    max + exp_sum(row, max).ln()
}

/// For `s = cap · tanh(x/cap)`: takes the gradient with respect to the logits s to that of x.
pub fn cap_backward(d: &mut [f32], logits: &[f32], cap: f32) {
    d.iter_mut().zip(logits).for_each(|(d, s)| *d *= 1.0 - (s / cap) * (s / cap));
}

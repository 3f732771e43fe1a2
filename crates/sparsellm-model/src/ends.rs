//! The two ends of a model: the embedding turns tokens into hidden states, and the head
//! turns hidden states into logits.

use crate::{Linear, Norm, NormGradient, Positions};
use sparsellm_base::Result;
use sparsellm_checkpoint::Checkpoint;
use sparsellm_tensor::{Matrix, matmul};

/// A table of learned positions.
#[derive(Clone, Debug)]
pub struct LearnedPositions {
    /// The tensor `[positions + offset, d]`.
    pub table: String,
    /// The row of position 0.
    pub offset: usize,
}

/// How tokens become hidden states.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// The tensor `[vocabulary, width]`.
    pub table: String,
    /// The width of the table.
    pub width: usize,
    /// The factor on the table's rows, if it is not 1 (Gemma).
    pub scale: Option<f32>,
    /// Projects from the table's width to that of the hidden states (OPT-350M).
    pub projection: Option<Linear>,
    /// Learned positions, added last (OPT).
    pub positions: Option<LearnedPositions>,
}

impl Embedding {
    /// Hidden states that are rows of `table: [vocabulary, width]`, and nothing else.
    pub fn rows_of(table: String, width: usize) -> Self {
        Embedding { table, width, scale: None, projection: None, positions: None }
    }

    /// The hidden states of `tokens`, `[tokens, d]`.
    pub(crate) fn embed(
        &self,
        checkpoint: &Checkpoint,
        tokens: &[u32],
        at: Positions,
    ) -> Result<Matrix> {
        let width = self.width;
        let mut hidden = Matrix::zeros(tokens.len(), width);
        for (row, &id) in hidden.data.chunks_exact_mut(width).zip(tokens) {
            let start = id as usize * width;
            row.copy_from_slice(&checkpoint.read(&self.table, start..start + width)?);
        }
        if let Some(scale) = self.scale {
            hidden.data.iter_mut().for_each(|v| *v *= scale);
        }
        if let Some(projection) = &self.projection {
            hidden = projection.forward(hidden.view());
        }
        if let Some(LearnedPositions { table, offset }) = &self.positions {
            let d = hidden.cols;
            let table = checkpoint.rows(table, offset + at.first..offset + at.end(), d)?;
            for (t, row) in hidden.data.chunks_exact_mut(d).enumerate() {
                let position = at.position(t) - at.first;
                row.iter_mut().zip(table.row(position)).for_each(|(h, p)| *h += p);
            }
        }
        Ok(hidden)
    }
}

/// How hidden states become logits.
#[derive(Clone, Debug)]
pub struct Head {
    /// The final norm.
    pub norm: Option<Norm>,
    /// Projects from the hidden states' width to the table's (OPT-350M).
    pub projection: Option<Linear>,
    /// The tensor `[vocabulary, width]` whose rows give the logits. Checkpoints of a bare
    /// decoder or of a classifier have none.
    pub table: Option<String>,
    /// The cap c on the logits, which become `c·tanh(logits/c)` (Gemma 2).
    pub softcap: Option<f32>,
}

impl Head {
    /// What the table's rows are multiplied with to give logits, `[tokens, width]`.
    pub(crate) fn input(&self, mut hidden: Matrix) -> Matrix {
        if let Some(norm) = &self.norm {
            hidden = norm.forward(hidden.view());
        }
        match &self.projection {
            Some(projection) => projection.forward(hidden.view()),
            None => hidden,
        }
    }

    /// The gradient with respect to `hidden`, given that with respect to what
    /// [`input`](Self::input) makes of it.
    pub(crate) fn input_backward(&self, hidden: &Matrix, mut d: Matrix) -> Matrix {
        if let Some(projection) = &self.projection {
            d = matmul(d.view(), projection.weight.view());
        }
        match &self.norm {
            Some(norm) => NormGradient::zeros(Some(norm)).backward(norm, hidden.view(), d.view()),
            None => d,
        }
    }
}

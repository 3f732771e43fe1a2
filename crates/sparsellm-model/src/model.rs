//! A checkpoint with its family.

use crate::{
    Block, Config, Family, Head, Opening, Positions, Shape, Tensors, families::architecture,
    open_family, supported_model_type,
};
use sparsellm_base::{Result, input_error, usage_error};
use sparsellm_checkpoint::Checkpoint;
use sparsellm_tensor::Matrix;
use std::{ops::Range, path::Path};

/// A checkpoint together with its family: a model whose layers can be read and run one
/// by one.
pub struct Model {
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The architecture that `config.json` names first, such as `LlamaForCausalLM`.
    pub architecture: String,
    family: Box<dyn Family>,
    /// The head's outline: its tensors' names and shapes, without values.
    head: Head,
}

impl Model {
    /// Opens a model and checks that every tensor it needs is there with the
    /// right shape.
    ///
    /// # Errors
    /// If the path is no model, the architecture is not supported, or a
    /// tensor is missing or misshapen.
    pub fn open(path: &Path) -> Result<Model> {
        let checkpoint = Checkpoint::open(path)?;
        let model_type = supported_model_type(&checkpoint.config, path)?;
        let tensors = checkpoint.tensors();
        let has_tensor = &|name: &str| tensors.contains_key(name);
        let family =
            open_family(&Opening { model_type, config: &Config::new(&checkpoint), has_tensor })?;
        let (layers, stored) = (family.shape().layers, tensors.len());
        if layers > stored {
            return input_error!(
                "{}: config.json says {layers} decoder layers, but there are only {stored} tensors",
                path.display()
            );
        }
        let outline = Tensors::outline(&checkpoint);
        family.embedding(&outline)?;
        let head = family.head(&outline)?;
        for index in 0..layers {
            family.block(&outline.under(&family.block_prefix(index)), index)?;
        }
        let architecture = architecture(&checkpoint.config, model_type);
        if head.table.is_none() && architecture.ends_with("ForCausalLM") {
            return no_head(&checkpoint, &architecture);
        }
        Ok(Model { checkpoint, architecture, family, head })
    }

    /// Sizes of the model.
    pub fn shape(&self) -> Shape {
        self.family.shape()
    }

    /// Reads decoder layer `index`, as f32. The operating system is told that the next layer
    /// will be needed.
    ///
    /// # Errors
    /// If its weights cannot be read, or are not finite.
    pub fn block(&self, index: usize) -> Result<Block> {
        let tensors = Tensors::read(&self.checkpoint);
        let block = self.family.block(&tensors.under(&self.family.block_prefix(index)), index)?;
        self.checkpoint.release();
        self.checkpoint.prefetch(&self.family.block_prefix(index + 1));
        Ok(block)
    }

    /// Decoder layer `index` without values: which linears it has, how large they are, and
    /// where they are stored.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn outline(&self, index: usize) -> Result<Block> {
        let tensors = Tensors::outline(&self.checkpoint);
        self.family.block(&tensors.under(&self.family.block_prefix(index)), index)
    }

    /// Embeds whole segments of `seq_len` tokens: their hidden states, `[tokens, d]`.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or the embedding cannot be read.
    pub fn embed(&self, tokens: &[u32], seq_len: usize) -> Result<Matrix> {
        self.embed_at(tokens, Positions::segments(seq_len))
    }

    /// Embeds tokens at the given positions of their texts.
    ///
    /// # Errors
    /// As for [`embed`](Self::embed).
    pub fn embed_at(&self, tokens: &[u32], positions: Positions) -> Result<Matrix> {
        let vocabulary = self.shape().vocabulary;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return input_error!(
                "token id {id} is outside the model's vocabulary of {vocabulary}; the text was tokenised for another model"
            );
        }
        let embedding = self.family.embedding(&Tensors::read(&self.checkpoint))?;
        let hidden = embedding.embed(&self.checkpoint, tokens, positions)?;
        self.checkpoint.release();
        Ok(hidden)
    }

    /// Turns the last layer's hidden states into the head's input: applies the final norm and,
    /// in OPT-350M, a projection.
    ///
    /// # Errors
    /// If its weights cannot be read.
    pub fn finish(&self, hidden: Matrix) -> Result<Matrix> {
        Ok(self.family.head(&Tensors::read(&self.checkpoint))?.input(hidden))
    }

    /// Takes the gradient `d` with respect to the output of [`finish`](Self::finish) back to that
    /// with respect to its input `hidden`.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn finish_backward(&self, hidden: &Matrix, d: Matrix) -> Result<Matrix> {
        Ok(self.family.head(&Tensors::read(&self.checkpoint))?.input_backward(hidden, d))
    }

    /// The head's rows for the token ids `tokens`, `[rows, d]`. Their products with the output
    /// of [`finish`](Self::finish) are these tokens' logits, before
    /// [`logit_softcap`](Self::logit_softcap).
    ///
    /// # Errors
    /// If the model has no head, as a bare decoder or a classifier, or it cannot be read.
    pub fn head_rows(&self, tokens: Range<usize>) -> Result<Matrix> {
        let Some(table) = &self.head.table else {
            return no_head(&self.checkpoint, &self.architecture);
        };
        let cols = self.checkpoint.info(table)?.shape.last().copied().unwrap_or(0);
        self.checkpoint.rows(table, tokens, cols)
    }

    /// The cap c on the logits, if the model has one: they become `c·tanh(logits/c)`.
    pub fn logit_softcap(&self) -> Option<f32> {
        self.head.softcap
    }

    /// Checks that the model can take segments of `seq_len` tokens.
    ///
    /// # Errors
    /// If they are longer than the model's learned positions, or shorter than two tokens, so
    /// that there is no next token to predict.
    pub fn check_seq_len(&self, seq_len: usize) -> Result<()> {
        let shape = self.shape();
        match shape.positions {
            Some(max) if shape.learned_positions && seq_len > max => usage_error!(
                "`seq_len` {seq_len} is longer than the model's {max} learned positions"
            ),
            _ if seq_len < 2 => usage_error!("`seq_len` must be at least 2"),
            _ => Ok(()),
        }
    }
}

/// The error that there are no logits.
fn no_head<T>(checkpoint: &Checkpoint, architecture: &str) -> Result<T> {
    input_error!(
        "{}: {architecture} has no head here (such as lm_head.weight, or tie_word_embeddings: true in config.json), so it gives no next-token probabilities; such a model can be pruned, but not evaluated",
        checkpoint.path.display()
    )
}

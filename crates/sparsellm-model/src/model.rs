//! A checkpoint with its family.

use crate::{
    Block, Config, Family, Head, Opening, Positions, Shape, Tensors, families::architecture,
    open_family, supported_model_type,
};
use sparsellm_base::{Result, input_error, usage_error};
use sparsellm_checkpoint::Checkpoint;
use sparsellm_tensor::Matrix;
use std::{ops::Range, path::Path};

/// A checkpoint with its family.
pub struct Model {
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The architecture's name in `config.json`, such as `LlamaForCausalLM`.
    pub architecture: String,
    family: Box<dyn Family>,
    /// The ends of the model, without values.
    head: Head,
}

impl Model {
    /// Opens a model and checks that every tensor it needs is there with the
    /// right shape.
    ///
    /// # Errors
    /// Where the path is no model, the architecture is not supported, or a
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

    /// Decoder layer `index`, in f32. The system is told to read the next one.
    ///
    /// # Errors
    /// Where its weights cannot be read, or are not finite.
    pub fn block(&self, index: usize) -> Result<Block> {
        let tensors = Tensors::read(&self.checkpoint);
        let block = self.family.block(&tensors.under(&self.family.block_prefix(index)), index)?;
        self.checkpoint.release();
        self.checkpoint.prefetch(&self.family.block_prefix(index + 1));
        Ok(block)
    }

    /// Decoder layer `index` without its values: which linears it has, how large they
    /// are, and where they are stored.
    ///
    /// # Errors
    /// Where there is no such layer.
    pub fn outline(&self, index: usize) -> Result<Block> {
        let tensors = Tensors::outline(&self.checkpoint);
        self.family.block(&tensors.under(&self.family.block_prefix(index)), index)
    }

    /// Hidden states of whole segments, `[tokens, d]`; every id must be in the
    /// vocabulary.
    ///
    /// # Errors
    /// Where an id is not, or the embedding cannot be read.
    pub fn embed(&self, tokens: &[u32], seq_len: usize) -> Result<Matrix> {
        self.embed_at(tokens, Positions::segments(seq_len))
    }

    /// Hidden states of tokens that stand at `positions`.
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

    /// What turns the last hidden states into the head's input: the final norm and,
    /// in some OPT models, a projection.
    ///
    /// # Errors
    /// Where its weights cannot be read.
    pub fn finish(&self, hidden: Matrix) -> Result<Matrix> {
        Ok(self.family.head(&Tensors::read(&self.checkpoint))?.input(hidden))
    }

    /// Some rows of the head, `[rows, d]`: those of the tokens `tokens`. Their
    /// products with what [`finish`](Self::finish) gives are the logits, before
    /// [`logit_softcap`](Self::logit_softcap).
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn head_rows(&self, tokens: Range<usize>) -> Result<Matrix> {
        let Some(table) = &self.head.table else {
            return no_head(&self.checkpoint, &self.architecture);
        };
        let cols = self.checkpoint.info(table)?.shape.last().copied().unwrap_or(0);
        self.checkpoint.rows(table, tokens, cols)
    }

    /// Logits become `c·tanh(logits/c)`, where there is a c.
    pub fn logit_softcap(&self) -> Option<f32> {
        self.head.softcap
    }

    /// Fails where segments of `seq_len` tokens are longer than the model's learned
    /// positions.
    ///
    /// # Errors
    /// Where they are, or where a segment has no next token to predict.
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

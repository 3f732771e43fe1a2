//! The tensor dimensions given by a llama GGUF's metadata.

use super::metadata::Metadata;
use super::reader::TensorInfo;
use sparsellm_base::{Result, input_error};

/// Exceeds every dimension of a real llama, and keeps products of two inside `usize`.
const MOST: usize = 1 << 28;

/// The dimensions that determine the shapes of the tensors.
pub(super) struct Dimensions {
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
}

impl Dimensions {
    /// Reads the dimensions from the metadata; the vocabulary size is the embedding's row
    /// count.
    pub fn read(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Dimensions> {
        let file = &metadata.file;
        match metadata.text("general.architecture")? {
            Some("llama") => {}
            Some(other) => {
                return input_error!(
                    "{file}: the architecture is `{other}`; of GGUF files only `llama` is read. \
                     Use the model's Hugging Face checkpoint."
                );
            }
            None => return input_error!("{file}: metadata key `general.architecture` is missing"),
        }
        if metadata.number("llama.expert_count")?.unwrap_or(0) > 0 {
            return input_error!("{file}: a mixture of experts; only dense models are read");
        }
        let size = |key: &str, default: Option<usize>| {
            let value = metadata.required(key, metadata.number(key)?.or(default))?;
            if !(1..=MOST).contains(&value) {
                return input_error!("{file}: metadata key `{key}` is {value}");
            }
            Ok(value)
        };
        let hidden = size("llama.embedding_length", None)?;
        let heads = size("llama.attention.head_count", None)?;
        let kv_heads = size("llama.attention.head_count_kv", Some(heads))?;
        let head_dim = size("llama.attention.key_length", Some(hidden / heads))?;
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            return input_error!(
                "{file}: {heads} heads of {head_dim} over {kv_heads} key-value heads cannot be"
            );
        }
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            let other = size(key, Some(head_dim))?;
            if other != head_dim {
                return input_error!("{file}: `{key}` is {other}, but a head has {head_dim}");
            }
        }
        let vocab = match tensors.iter().find(|tensor| tensor.name == "token_embd.weight") {
            Some(TensorInfo { shape, .. }) if shape.len() == 2 => shape[0],
            Some(_) => return input_error!("{file}: tensor `token_embd.weight` is no matrix"),
            None => return input_error!("{file}: there is no tensor `token_embd.weight`"),
        };
        let stated = size("llama.vocab_size", Some(vocab))?;
        if stated != vocab {
            return input_error!(
                "{file}: `llama.vocab_size` is {stated}, the embedding has {vocab}"
            );
        }
        Ok(Dimensions {
            layers: size("llama.block_count", None)?,
            hidden,
            intermediate: size("llama.feed_forward_length", None)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
        })
    }
}

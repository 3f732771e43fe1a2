//! The tensor dimensions given by a GGUF's metadata.

use super::metadata::Keys;
use super::reader::TensorInfo;
use sparsellm_base::{Result, input_error};

/// Exceeds every dimension of a real model, and keeps products of two inside `usize`.
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
    pub fn read<'t>(
        keys: &Keys<'_>,
        mut tensors: impl Iterator<Item = &'t TensorInfo>,
    ) -> Result<Dimensions> {
        let file = keys.file();
        if keys.number("expert_count")?.unwrap_or(0) > 0 {
            return input_error!("{file}: a mixture of experts; only dense models are read");
        }
        let size = |key: &str, default: Option<usize>| {
            let value = keys.required(key, keys.number(key)?.or(default))?;
            if !(1..=MOST).contains(&value) {
                return input_error!("{file}: metadata key `{}` is {value}", keys.full(key));
            }
            Ok(value)
        };
        let hidden = size("embedding_length", None)?;
        let heads = size("attention.head_count", None)?;
        let kv_heads = size("attention.head_count_kv", Some(heads))?;
        let head_dim = size("attention.key_length", Some(hidden / heads))?;
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            return input_error!(
                "{file}: {heads} heads of {head_dim} over {kv_heads} key-value heads cannot be"
            );
        }
        let values = size("attention.value_length", Some(head_dim))?;
        if values != head_dim {
            return input_error!(
                "{file}: `{}` is {values}, but a head has {head_dim}",
                keys.full("attention.value_length")
            );
        }
        let vocab = match tensors.find(|tensor| tensor.name == "token_embd.weight") {
            Some(TensorInfo { shape, .. }) if shape.len() == 2 => shape[0],
            Some(_) => return input_error!("{file}: tensor `token_embd.weight` is no matrix"),
            None => return input_error!("{file}: there is no tensor `token_embd.weight`"),
        };
        let stated = size("vocab_size", Some(vocab))?;
        if stated != vocab {
            return input_error!(
                "{file}: `{}` is {stated}, the embedding has {vocab}",
                keys.full("vocab_size")
            );
        }
        Ok(Dimensions {
            layers: size("block_count", None)?,
            hidden,
            intermediate: size("feed_forward_length", None)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
        })
    }
}

//! The Hugging Face `config.json` that a llama GGUF's metadata amount to.

use serde_json::{Value, json};

use super::metadata::Metadata;
use super::reader::TensorInfo;
use super::{Gguf, rope};
use crate::error::{Result, invalid};

/// More of anything than a llama has; keeps products of two inside `usize`.
const MOST: usize = 1 << 28;

/// The sizes that the tensors' shapes follow from.
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
    /// From the metadata, and the vocabulary from the embedding's rows.
    pub fn read(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Dimensions> {
        let file = &metadata.file;
        match metadata.text("general.architecture")? {
            Some("llama") => {}
            Some(other) => {
                return invalid!(
                    "{file}: the architecture is `{other}`; of GGUF files only `llama` is read. \
                     Use the model's Hugging Face checkpoint."
                );
            }
            None => return invalid!("{file}: metadata key `general.architecture` is missing"),
        }
        if metadata.number("llama.expert_count")?.unwrap_or(0) > 0 {
            return invalid!("{file}: a mixture of experts; only dense models are read");
        }
        let size = |key: &str, default: Option<usize>| {
            let value = metadata.required(key, metadata.number(key)?.or(default))?;
            if !(1..=MOST).contains(&value) {
                return invalid!("{file}: metadata key `{key}` is {value}");
            }
            Ok(value)
        };
        let hidden = size("llama.embedding_length", None)?;
        let heads = size("llama.attention.head_count", None)?;
        let kv_heads = size("llama.attention.head_count_kv", Some(heads))?;
        let head_dim = size("llama.attention.key_length", Some(hidden / heads))?;
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            return invalid!(
                "{file}: {heads} heads of {head_dim} over {kv_heads} key-value heads cannot be"
            );
        }
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            let other = size(key, Some(head_dim))?;
            if other != head_dim {
                return invalid!("{file}: `{key}` is {other}, but a head has {head_dim}");
            }
        }
        let vocab = match tensors.iter().find(|tensor| tensor.name == "token_embd.weight") {
            Some(TensorInfo { shape, .. }) if shape.len() == 2 => shape[0],
            Some(_) => return invalid!("{file}: tensor `token_embd.weight` is no matrix"),
            None => return invalid!("{file}: there is no tensor `token_embd.weight`"),
        };
        let stated = size("llama.vocab_size", Some(vocab))?;
        if stated != vocab {
            return invalid!("{file}: `llama.vocab_size` is {stated}, the embedding has {vocab}");
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

impl Gguf {
    /// The model's `config.json`, for `LlamaForCausalLM`.
    ///
    /// # Errors
    /// If a key is missing or absurd, or the position scaling is not one that
    /// can be told exactly.
    pub fn config(&self) -> Result<Value> {
        let (m, d) = (&self.metadata, &self.dimensions);
        let file = &m.file;
        let positive = |key: &str, default: Option<f64>| {
            let value = m.required(key, m.float(key)?.or(default))?;
            if value > 0.0 { Ok(value) } else { invalid!("{file}: `{key}` is {value}") }
        };
        let eps = positive("llama.attention.layer_norm_rms_epsilon", None)?;
        let theta = positive("llama.rope.freq_base", Some(10_000.0))?;
        let context = m.required("llama.context_length", m.number("llama.context_length")?)?;
        let ids = self.special_ids()?;
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "bos_token_id": ids.bos,
            "eos_token_id": ids.eos,
            "hidden_act": "silu",
            "hidden_size": d.hidden,
            "intermediate_size": d.intermediate,
            "max_position_embeddings": context,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": d.heads,
            "num_hidden_layers": d.layers,
            "num_key_value_heads": d.kv_heads,
            "rms_norm_eps": eps,
            "rope_scaling": self.rope_scaling(theta)?,
            "rope_theta": theta,
            "tie_word_embeddings": !self.index.contains_key("lm_head.weight"),
            "torch_dtype": "float16",
            "use_cache": true,
            "vocab_size": d.vocab,
        });
        if d.head_dim * d.heads != d.hidden || m.number("llama.attention.key_length")?.is_some() {
            config["head_dim"] = json!(d.head_dim);
        }
        if let Some(pad) = ids.pad {
            config["pad_token_id"] = json!(pad);
        }
        Ok(config)
    }

    /// `rope_scaling`: null, linear from the metadata, or llama3 from the
    /// table that llama.cpp bakes it into.
    fn rope_scaling(&self, theta: f64) -> Result<Value> {
        let (m, file) = (&self.metadata, &self.metadata.file);
        let kind = m.text("llama.rope.scaling.type")?;
        let factor = match m.float("llama.rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => m.float("llama.rope.scale_linear")?,
        };
        let scaling = match (kind, factor) {
            (Some("none"), _) | (None, None | Some(1.0)) => Value::Null,
            (Some("linear") | None, Some(factor)) if factor >= 1.0 => {
                json!({ "rope_type": "linear", "factor": factor })
            }
            _ => {
                return invalid!(
                    "{file}: position scaling of type `{}` with factor {factor:?} is not read",
                    kind.unwrap_or("none given")
                );
            }
        };
        let Some(table) = &self.rope_factors else { return Ok(scaling) };
        if !scaling.is_null() {
            return invalid!("{file}: positions are scaled both linearly and by `rope_freqs`");
        }
        match rope::llama3(table, self.dimensions.head_dim, theta) {
            Some(scaling) => Ok(scaling),
            None => invalid!(
                "{file}: `rope_freqs.weight` is not Llama 3's position scaling; \
                 use the model's Hugging Face checkpoint"
            ),
        }
    }
}

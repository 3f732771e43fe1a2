//! The Hugging Face `config.json` equivalent to a llama GGUF's metadata.

use serde_json::{Value, json};

use super::file::Gguf;
use super::rope;
use sparsellm_base::{Result, input_error};

impl Gguf {
    /// The model's `config.json`, for `LlamaForCausalLM`.
    ///
    /// # Errors
    /// Returns an error if a key is missing or out of range, or the position scaling cannot
    /// be recovered exactly.
    pub fn config(&self) -> Result<Value> {
        let (m, d) = (&self.metadata, &self.dimensions);
        let file = &m.file;
        let positive = |key: &str, default: Option<f64>| {
            let value = m.required(key, m.float(key)?.or(default))?;
            if value > 0.0 { Ok(value) } else { input_error!("{file}: `{key}` is {value}") }
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

    /// `rope_scaling`: null, linear if the metadata say so, or llama3 as recovered from the
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
                return input_error!(
                    "{file}: position scaling of type `{}` with factor {factor:?} is not read",
                    kind.unwrap_or("none given")
                );
            }
        };
        let Some(table) = &self.rope_factors else { return Ok(scaling) };
        if !scaling.is_null() {
            return input_error!("{file}: positions are scaled both linearly and by `rope_freqs`");
        }
        match rope::llama3(table, self.dimensions.head_dim, theta) {
            Some(scaling) => Ok(scaling),
            None => input_error!(
                "{file}: `rope_freqs.weight` is not Llama 3's position scaling; \
                 use the model's Hugging Face checkpoint"
            ),
        }
    }
}

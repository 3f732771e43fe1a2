//! The Hugging Face `config.json` equivalent to a GGUF's metadata.

use serde_json::{Value, json};

use super::file::Gguf;
use super::settings::Settings;
use crate::Dtype;
use sparsellm_base::Result;

impl Gguf {
    /// The model's `config.json`, for the class in transformers that the architecture has.
    ///
    /// # Errors
    /// Returns an error if a key is missing or out of range, or the position scaling cannot
    /// be recovered exactly.
    pub fn config(&self) -> Result<Value> {
        let (d, architecture) = (&self.dimensions, self.architecture);
        let (class, model_type) = architecture.class;
        let keys = self.metadata.keys(architecture.name);
        let context = keys.required("context_length", keys.number("context_length")?)?;
        let ids = self.special_ids()?;
        let has_head = architecture.head().is_some_and(|head| self.index.contains_key(head));
        let mut config = json!({
            "architectures": [class],
            "bos_token_id": ids.bos,
            "eos_token_id": ids.eos,
            "hidden_size": d.hidden,
            "intermediate_size": d.intermediate,
            "max_position_embeddings": context,
            "model_type": model_type,
            "num_attention_heads": d.heads,
            "num_hidden_layers": d.layers,
            "tie_word_embeddings": !has_head,
            "torch_dtype": match architecture.dtype {
                Dtype::Bf16 => "bfloat16",
                _ => "float16",
            },
            "use_cache": true,
            "vocab_size": d.vocab,
        });
        if let Some(pad) = ids.pad {
            config["pad_token_id"] = json!(pad);
        }
        let first = architecture.prefix(0);
        let settings = Settings {
            keys,
            dimensions: d,
            rope_factors: self.rope_factors.as_deref(),
            first_layer_has: &|name| self.index.contains_key(&format!("{first}{name}")),
        };
        let own = (architecture.config)(&settings)?;
        if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
            config.extend(own);
        }
        Ok(config)
    }
}

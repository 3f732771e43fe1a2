//! Gemma 2: a gelu-gated network, norms before and after each half, scaled
//! embeddings, soft caps on scores and logits, and a window in every other layer.

use crate::{
    Activation, Attention, Block, Config, Embedding, Family, Ffn, HalfNorms, Head, Norm,
    Registration, Residual, Rope, Shape, Tensors, rope::RopeDefaults,
};
use serde_json::Value;
use sparsellm_base::Result;
use std::sync::Arc;

pub(super) const FAMILY: Registration =
    Registration { architectures: &[("Gemma2ForCausalLM", "gemma2")], open: Gemma2::open };

/// A Gemma 2 model: its configuration.
struct Gemma2 {
    shape: Shape,
    tied: bool,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    activation: Activation,
    eps: f32,
    rope: Arc<Rope>,
    /// Each layer's window.
    windows: Vec<Option<usize>>,
    scale: f32,
    attention_cap: Option<f32>,
    logit_cap: Option<f32>,
    bias: bool,
}

impl Gemma2 {
    /// Reads the configuration; what it leaves out is transformers' default.
    fn open(_: &str, config: &Config, _: &dyn Fn(&str) -> bool) -> Result<Box<dyn Family>> {
        let size = |key: &str, default: usize| -> Result<usize> {
            Ok(config.optional_size(key)?.unwrap_or(default))
        };
        let (heads, kv_heads) = (size("num_attention_heads", 8)?, size("num_key_value_heads", 4)?);
        let (hidden, head_dim) = (size("hidden_size", 2304)?, size("head_dim", 256)?);
        if heads % kv_heads != 0 || head_dim % 2 != 0 || head_dim > 1 << 16 {
            return config.fail(format!(
                "{heads} heads of {head_dim} features with {kv_heads} key/value heads do not fit together"
            ));
        }
        if config.flag("use_bidirectional_attention", false)? {
            return config.fail("use_bidirectional_attention is not supported");
        }
        let layers = size("num_hidden_layers", 26)?;
        let window = size("sliding_window", 4096)?;
        let cap = |key: &str, default: f64| -> Result<Option<f32>> {
            Ok(config.optional_positive(key, Some(default))?.map(|cap| cap as f32))
        };
        let scalar = config.optional_positive("query_pre_attn_scalar", Some(256.0))?;
        Ok(Box::new(Gemma2 {
            shape: Shape {
                layers,
                hidden,
                vocabulary: size("vocab_size", 256_000)?,
                positions: Some(size("max_position_embeddings", 8192)?),
                learned_positions: false,
            },
            tied: config.flag("tie_word_embeddings", true)?,
            heads,
            kv_heads,
            head_dim,
            ffn: size("intermediate_size", 9216)?,
            activation: config.activation(&["hidden_activation"], "gelu_pytorch_tanh")?,
            eps: config.number("rms_norm_eps", 1e-6)? as f32,
            rope: Arc::new(Rope::from_config(config, head_dim, RopeDefaults::LLAMA)?),
            windows: windows(config, layers, window)?,
            scale: scalar.unwrap_or(head_dim as f64).powf(-0.5) as f32,
            attention_cap: cap("attn_logit_softcapping", 50.0)?,
            logit_cap: cap("final_logit_softcapping", 30.0)?,
            bias: config.flag("attention_bias", false)?,
        }))
    }
}

/// Each layer's window: as `layer_types` has it, or else in every even layer.
fn windows(config: &Config, layers: usize, window: usize) -> Result<Vec<Option<usize>>> {
    let Some(types) = config.get("layer_types") else {
        return Ok((0..layers.min(1 << 20)).map(|i| (i % 2 == 0).then_some(window)).collect());
    };
    let kinds = types.as_array().map(Vec::as_slice).unwrap_or_default();
    if kinds.len() != layers {
        return config.fail(format!("layer_types does not list {layers} layers"));
    }
    let window = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(Some(window)),
        Some("full_attention") => Ok(None),
        _ => config.fail(format!("layer_types: {kind} is not supported")),
    };
    kinds.iter().map(window).collect()
}

/// Gemma's RMSNorm multiplies by `1 + weight`.
fn norm(t: &Tensors, name: &str, d: usize, eps: f32) -> Result<Option<Norm>> {
    let weight = t.vector(&format!("{name}.weight"), d)?;
    Ok(Some(Norm::Rms { weight: weight.into_iter().map(|w| 1.0 + w).collect(), eps }))
}

impl Family for Gemma2 {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let d = self.shape.hidden;
        Ok(Embedding {
            table: t.table("model.embed_tokens.weight", self.shape.vocabulary, d)?,
            width: d,
            scale: Some((d as f64).sqrt() as f32),
            projection: None,
            positions: None,
        })
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("model.layers.{index}.")
    }

    fn block(&self, t: &Tensors, index: usize) -> Result<Block> {
        let (d, ff, bias) = (self.shape.hidden, self.ffn, self.bias);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let norms = |input: &str, output: &str| -> Result<HalfNorms> {
            Ok(HalfNorms {
                input: norm(t, input, d, self.eps)?,
                output: norm(t, output, d, self.eps)?,
                sum: None,
            })
        };
        Ok(Block {
            attention: Attention {
                q: t.linear("self_attn.q_proj", [q, d], bias)?,
                k: t.linear("self_attn.k_proj", [kv, d], bias)?,
                v: t.linear("self_attn.v_proj", [kv, d], bias)?,
                o: t.linear("self_attn.o_proj", [d, q], bias)?,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                q_norm: None,
                k_norm: None,
                rope: Some(self.rope.clone()),
                window: self.windows.get(index).copied().flatten(),
                scale: self.scale,
                softcap: self.attention_cap,
            },
            ffn: Ffn::Gated {
                gate: t.linear("mlp.gate_proj", [ff, d], false)?,
                up: t.linear("mlp.up_proj", [ff, d], false)?,
                down: t.linear("mlp.down_proj", [d, ff], false)?,
                activation: self.activation,
            },
            attention_norms: norms("input_layernorm", "post_attention_layernorm")?,
            ffn_norms: norms("pre_feedforward_layernorm", "post_feedforward_layernorm")?,
            residual: Residual::Serial,
        })
    }

    fn head(&self, t: &Tensors) -> Result<Head> {
        let (vocabulary, d) = (self.shape.vocabulary, self.shape.hidden);
        let name = if self.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        Ok(Head {
            norm: norm(t, "model.norm", d, self.eps)?,
            projection: None,
            table: t.table(name, vocabulary, d)?,
            softcap: self.logit_cap,
        })
    }
}

//! Gemma 2: a gelu-gated network, norms before and after each half, scaled
//! embeddings, soft caps on scores and logits, and a window in every other layer.

use crate::{
    Activation, Attention, Block, Embedding, Family, Ffn, HalfNorms, Head, Norm, Opening,
    Registration, Residual, Rope, Shape, Tensors, families::Tables, rope::RopeKeys,
};
use serde_json::Value;
use sparsellm_base::Result;
use std::sync::Arc;

pub(super) const FAMILY: Registration = Registration {
    members: &[("Gemma2ForCausalLM", "gemma2")],
    without_effect: &[],
    open: Gemma2::open,
};

/// A Gemma 2 model: its configuration.
struct Gemma2 {
    shape: Shape,
    prefix: &'static str,
    tables: Tables,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    activation: Activation,
    eps: f32,
    rope: Arc<Rope>,
    /// The window of each layer.
    windows: Vec<Option<usize>>,
    scale: f32,
    attention_cap: Option<f32>,
    logit_cap: Option<f32>,
    bias: bool,
}

impl Gemma2 {
    fn open(opening: &Opening) -> Result<Box<dyn Family>> {
        let config = opening.config;
        let heads = config.size("num_attention_heads", 8)?;
        let kv_heads = config.size("num_key_value_heads", 4)?;
        let head_dim = config.size("head_dim", 256)?;
        if heads % kv_heads != 0 || head_dim % 2 != 0 || head_dim > 1 << 16 {
            return config.fail(format!(
                "{heads} heads of {head_dim} features with {kv_heads} key/value heads do not fit together"
            ));
        }
        config.only("use_bidirectional_attention", Value::Null)?;
        let (hidden, layers) = (config.size("hidden_size", 2304)?, config.size("num_hidden_layers", 26)?);
        let positions = config.size("max_position_embeddings", 8192)?;
        let window = config.optional_size("sliding_window", Some(4096))?;
        let cap = |key: &str, default: f64| -> Result<Option<f32>> {
            Ok(config.optional_positive(key, Some(default))?.map(|cap| cap as f32))
        };
        let scalar = config.optional_positive("query_pre_attn_scalar", Some(256.0))?;
        let prefix = opening.prefix(&["", "model."], "norm.weight");
        let tied = config.flag("tie_word_embeddings", true)?;
        Ok(Box::new(Gemma2 {
            shape: Shape {
                layers,
                hidden,
                vocabulary: config.size("vocab_size", 256_000)?,
                positions: Some(positions),
                learned_positions: false,
            },
            prefix,
            tables: opening.tables(format!("{prefix}embed_tokens.weight"), "lm_head.weight", tied),
            heads,
            kv_heads,
            head_dim,
            ffn: config.size("intermediate_size", 9216)?,
            activation: config.activation("hidden_activation", "gelu_pytorch_tanh")?,
            eps: config.number("rms_norm_eps", 1e-6)? as f32,
            rope: Arc::new(Rope::from_config(config, head_dim, positions, RopeKeys::LLAMA)?),
            windows: config.layer_windows(layers, window, |layer| layer % 2 == 0)?,
            scale: scalar.unwrap_or(256.0).powf(-0.5) as f32,
            attention_cap: cap("attn_logit_softcapping", 50.0)?,
            logit_cap: cap("final_logit_softcapping", 30.0)?,
            bias: config.flag("attention_bias", false)?,
        }))
    }
}

/// Gemma's RMSNorm multiplies by `1 + weight`.
fn norm(t: &Tensors, name: &str, d: usize, eps: f32) -> Result<Option<Norm>> {
    t.rms_norm_plus(&format!("{name}.weight"), d, eps, 1.0).map(Some)
}

impl Family for Gemma2 {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let d = self.shape.hidden;
        let table = t.table(&self.tables.embedding, self.shape.vocabulary, d)?;
        let scale = Some((d as f64).sqrt() as f32);
        Ok(Embedding { scale, ..Embedding::rows_of(table, d) })
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
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
        Ok(Head {
            norm: norm(&t.under(self.prefix), "norm", d, self.eps)?,
            projection: None,
            table: t.optional_table(self.tables.head.as_deref(), vocabulary, d)?,
            softcap: self.logit_cap,
        })
    }
}

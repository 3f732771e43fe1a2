//! The SwiGLU family: LLaMA 1 to 3.2, SmolLM2, Mistral, Qwen2, Qwen3. RMSNorm,
//! rotary positions, grouped-query attention; the members differ in a few
//! switches.

use crate::{
    Activation, Attention, Block, Config, Embedding, Family, Ffn, HalfNorms, Head, Norm,
    Registration, Residual, Rope, Shape, Tensors, rope::RopeDefaults,
};
use sparsellm_base::Result;
use std::sync::Arc;

pub(super) const FAMILY: Registration = Registration {
    architectures: &[
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "mistral"),
        ("Qwen2ForCausalLM", "qwen2"),
        ("Qwen3ForCausalLM", "qwen3"),
    ],
    open: Llama::open,
};

/// A model of the family: its configuration.
struct Llama {
    shape: Shape,
    prefix: &'static str,
    tied: bool,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// A norm on every query and key head (Qwen3).
    head_norms: bool,
    ffn: usize,
    eps: f32,
    rope: Arc<Rope>,
    window: Option<usize>,
    qkv_bias: bool,
    o_bias: bool,
    mlp_bias: bool,
}

/// The widest head that is accepted. A configuration that claims a wider one is corrupt, and
/// would exhaust the memory before that showed.
const WIDEST_HEAD: usize = 1 << 16;

impl Llama {
    fn open(
        architecture: &str,
        config: &Config,
        has_tensor: &dyn Fn(&str) -> bool,
    ) -> Result<Box<dyn Family>> {
        let hidden = config.size("hidden_size")?;
        let layers = config.size("num_hidden_layers")?;
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = config.optional_size("head_dim")?.unwrap_or(hidden / heads);
        if heads % kv_heads != 0 || head_dim == 0 || head_dim % 2 != 0 || head_dim > WIDEST_HEAD {
            return config.fail(format!(
                "{heads} heads of {head_dim} features with {kv_heads} key/value heads do not fit together"
            ));
        }
        let activation = config.get("hidden_act").and_then(|v| v.as_str()).unwrap_or("silu");
        if activation != "silu" && activation != "swish" {
            return config.fail(format!("hidden_act {activation} is not supported (silu is)"));
        }
        let attention_bias = config.flag("attention_bias", false)?;
        let qwen2 = architecture == "Qwen2ForCausalLM";
        let qwen3 = architecture == "Qwen3ForCausalLM";
        let windowed = architecture == "MistralForCausalLM";
        // Qwen applies its window only to layers from max_window_layers on.
        if (qwen2 || qwen3)
            && config.flag("use_sliding_window", false)?
            && config.optional_size("max_window_layers")?.unwrap_or(0) < layers
        {
            return config.fail("use_sliding_window is not supported for Qwen");
        }
        Ok(Box::new(Llama {
            shape: Shape {
                layers,
                hidden,
                vocabulary: config.size("vocab_size")?,
                positions: config.optional_size("max_position_embeddings")?,
                learned_positions: false,
            },
            prefix: if has_tensor("embed_tokens.weight") { "" } else { "model." },
            tied: config.flag("tie_word_embeddings", false)?,
            heads,
            kv_heads,
            head_dim,
            head_norms: qwen3,
            ffn: config.size("intermediate_size")?,
            eps: config.number("rms_norm_eps", 1e-6)? as f32,
            rope: Arc::new(Rope::from_config(config, head_dim, RopeDefaults::LLAMA)?),
            window: if windowed { config.optional_size("sliding_window")? } else { None },
            qkv_bias: attention_bias || qwen2,
            o_bias: attention_bias,
            mlp_bias: config.flag("mlp_bias", false)?,
        }))
    }
}

impl Family for Llama {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let (vocabulary, d) = (self.shape.vocabulary, self.shape.hidden);
        Ok(Embedding {
            table: t.under(self.prefix).table("embed_tokens.weight", vocabulary, d)?,
            width: d,
            scale: None,
            projection: None,
            positions: None,
        })
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
    }

    fn block(&self, t: &Tensors, _: usize) -> Result<Block> {
        let (d, ff) = (self.shape.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let norm = |name: &str| {
            let input = Some(t.rms_norm(&format!("{name}.weight"), d, self.eps)?);
            Ok(HalfNorms { input, ..HalfNorms::default() })
        };
        let head_norm = |name: &str| -> Result<Option<Norm>> {
            let name = format!("{name}.weight");
            self.head_norms.then(|| t.rms_norm(&name, self.head_dim, self.eps)).transpose()
        };
        Ok(Block {
            attention: Attention {
                q: t.linear("self_attn.q_proj", [q, d], self.qkv_bias)?,
                k: t.linear("self_attn.k_proj", [kv, d], self.qkv_bias)?,
                v: t.linear("self_attn.v_proj", [kv, d], self.qkv_bias)?,
                o: t.linear("self_attn.o_proj", [d, q], self.o_bias)?,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                q_norm: head_norm("self_attn.q_norm")?,
                k_norm: head_norm("self_attn.k_norm")?,
                rope: Some(self.rope.clone()),
                window: self.window,
                scale: Attention::usual_scale(self.head_dim),
                softcap: None,
            },
            ffn: Ffn::Gated {
                gate: t.linear("mlp.gate_proj", [ff, d], self.mlp_bias)?,
                up: t.linear("mlp.up_proj", [ff, d], self.mlp_bias)?,
                down: t.linear("mlp.down_proj", [d, ff], self.mlp_bias)?,
                activation: Activation::Silu,
            },
            attention_norms: norm("input_layernorm")?,
            ffn_norms: norm("post_attention_layernorm")?,
            residual: Residual::Serial,
        })
    }

    fn head(&self, t: &Tensors) -> Result<Head> {
        let (vocabulary, d) = (self.shape.vocabulary, self.shape.hidden);
        Ok(Head {
            norm: Some(t.under(self.prefix).rms_norm("norm.weight", d, self.eps)?),
            projection: None,
            table: match self.tied {
                true => t.under(self.prefix).table("embed_tokens.weight", vocabulary, d)?,
                false => t.table("lm_head.weight", vocabulary, d)?,
            },
            softcap: None,
        })
    }
}

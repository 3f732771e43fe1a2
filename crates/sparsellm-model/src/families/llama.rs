//! The SwiGLU family: LLaMA 1 to 3.2, SmolLM2, Mistral, Ministral, Qwen2, Qwen3. RMSNorm,
//! rotary positions, grouped-query attention; the members differ in a few
//! switches.

use crate::{
    Activation, Attention, Block, Config, Embedding, Family, Ffn, HalfNorms, Head, Norm, Opening,
    Registration, Residual, Rope, Shape, Tensors, families::Tables, rope::RopeKeys,
};
use sparsellm_base::Result;
use std::sync::Arc;

pub(super) const FAMILY: Registration = Registration {
    members: &[
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "mistral"),
        ("MinistralForCausalLM", "ministral"),
        ("Qwen2ForCausalLM", "qwen2"),
        ("Qwen3ForCausalLM", "qwen3"),
    ],
    without_effect: &["pretraining_tp"],
    open: Llama::open,
};

/// How a member of the family differs from the others, and the defaults of its
/// configuration class in transformers.
struct Member {
    vocabulary: usize,
    ffn: usize,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    positions: usize,
    attention_bias: AttentionBias,
    mlp_bias: bool,
    head_norms: bool,
    windows: Windows,
}

/// Which linears of the attention have a bias.
enum AttentionBias {
    None,
    Qkv,
    /// All or none, as the configuration's `attention_bias` says.
    Configured,
}

/// Which layers attend to a window only.
enum Windows {
    None,
    /// Those that `layer_types` names, or all. transformers takes a Mistral model with
    /// `layer_types` for a Ministral one.
    All,
    /// Those that `layer_types` names, or those from `max_window_layers` on, if
    /// `use_sliding_window`.
    Late,
}

const LLAMA: Member = Member {
    vocabulary: 32_000,
    ffn: 11_008,
    kv_heads: None,
    head_dim: None,
    positions: 2048,
    attention_bias: AttentionBias::Configured,
    mlp_bias: true,
    head_norms: false,
    windows: Windows::None,
};

const MISTRAL: Member = Member {
    ffn: 14_336,
    kv_heads: Some(8),
    positions: 131_072,
    attention_bias: AttentionBias::None,
    mlp_bias: false,
    windows: Windows::All,
    ..LLAMA
};

const QWEN2: Member = Member {
    vocabulary: 151_936,
    ffn: 22_016,
    kv_heads: Some(32),
    positions: 32_768,
    attention_bias: AttentionBias::Qkv,
    mlp_bias: false,
    windows: Windows::Late,
    ..LLAMA
};

const QWEN3: Member = Member {
    head_dim: Some(128),
    attention_bias: AttentionBias::Configured,
    head_norms: true,
    ..QWEN2
};

/// A model of the family: its configuration.
struct Llama {
    shape: Shape,
    prefix: &'static str,
    tables: Tables,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Whether every query and key head has a norm (Qwen3).
    head_norms: bool,
    ffn: usize,
    activation: Activation,
    eps: f32,
    rope: Arc<Rope>,
    /// The window of each layer.
    windows: Vec<Option<usize>>,
    qkv_bias: bool,
    o_bias: bool,
    mlp_bias: bool,
}

/// The widest head that is accepted. A configuration that claims a wider one is corrupt, and
/// would exhaust the memory before that showed.
const WIDEST_HEAD: usize = 1 << 16;

impl Llama {
    fn open(opening: &Opening) -> Result<Box<dyn Family>> {
        let config = opening.config;
        let member = match opening.model_type {
            "mistral" | "ministral" => MISTRAL,
            "qwen2" => QWEN2,
            "qwen3" => QWEN3,
            _ => LLAMA,
        };
        let hidden = config.size("hidden_size", 4096)?;
        let layers = config.size("num_hidden_layers", 32)?;
        let heads = config.size("num_attention_heads", 32)?;
        let kv_heads =
            config.optional_size("num_key_value_heads", member.kv_heads)?.unwrap_or(heads);
        let head_dim = config.optional_size("head_dim", member.head_dim)?.unwrap_or(hidden / heads);
        if heads % kv_heads != 0 || head_dim == 0 || head_dim % 2 != 0 || head_dim > WIDEST_HEAD {
            return config.fail(format!(
                "{heads} heads of {head_dim} features with {kv_heads} key/value heads do not fit together"
            ));
        }
        let positions = config.size("max_position_embeddings", member.positions)?;
        let (qkv_bias, o_bias) = match member.attention_bias {
            AttentionBias::None => (false, false),
            AttentionBias::Qkv => (true, false),
            AttentionBias::Configured => {
                let bias = config.flag("attention_bias", false)?;
                (bias, bias)
            }
        };
        let prefix = opening.prefix(&["", "model."], "norm.weight");
        let tied = config.flag("tie_word_embeddings", false)?;
        Ok(Box::new(Llama {
            shape: Shape {
                layers,
                hidden,
                vocabulary: config.size("vocab_size", member.vocabulary)?,
                positions: Some(positions),
                learned_positions: false,
            },
            tables: opening.tables(format!("{prefix}embed_tokens.weight"), "lm_head.weight", tied),
            prefix,
            heads,
            kv_heads,
            head_dim,
            head_norms: member.head_norms,
            ffn: config.size("intermediate_size", member.ffn)?,
            activation: config.activation("hidden_act", "silu")?,
            eps: config.number("rms_norm_eps", 1e-6)? as f32,
            rope: Arc::new(Rope::from_config(config, head_dim, positions, RopeKeys::LLAMA)?),
            windows: windows(config, &member.windows, layers)?,
            qkv_bias,
            o_bias,
            mlp_bias: member.mlp_bias && config.flag("mlp_bias", false)?,
        }))
    }
}

/// The window of each layer.
fn windows(config: &Config, kind: &Windows, layers: usize) -> Result<Vec<Option<usize>>> {
    match kind {
        Windows::None => Ok(Vec::new()),
        Windows::All => {
            let window = config.optional_size("sliding_window", Some(4096))?;
            config.layer_windows(layers, window, |_| true)
        }
        Windows::Late => {
            let used = config.flag("use_sliding_window", false)?;
            let window = config.optional_size("sliding_window", Some(4096))?.filter(|_| used);
            let first = config.count("max_window_layers", 28)?;
            config.layer_windows(layers, window, |layer| layer >= first)
        }
    }
}

impl Family for Llama {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let (vocabulary, d) = (self.shape.vocabulary, self.shape.hidden);
        let table = t.table(&self.tables.embedding, vocabulary, d)?;
        Ok(Embedding::rows_of(table, d))
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
    }

    fn block(&self, t: &Tensors, index: usize) -> Result<Block> {
        let (d, ff) = (self.shape.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let norm = |name: &str| {
            Ok(HalfNorms::before(t.rms_norm(&format!("{name}.weight"), d, self.eps)?))
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
                window: self.windows.get(index).copied().flatten(),
                scale: Attention::usual_scale(self.head_dim),
                softcap: None,
            },
            ffn: Ffn::Gated {
                gate: t.linear("mlp.gate_proj", [ff, d], self.mlp_bias)?,
                up: t.linear("mlp.up_proj", [ff, d], self.mlp_bias)?,
                down: t.linear("mlp.down_proj", [d, ff], self.mlp_bias)?,
                activation: self.activation,
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
            table: t.optional_table(self.tables.head.as_deref(), vocabulary, d)?,
            softcap: None,
        })
    }
}

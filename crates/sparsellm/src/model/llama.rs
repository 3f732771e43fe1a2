//! The SwiGLU family: LLaMA 1 to 3.2, SmolLM2, Mistral, Qwen2, Qwen3. RMSNorm,
//! rotary positions, grouped-query attention; the members differ in a few
//! switches.

use super::{
    Attention, Config, DecoderLayer, Family, FeedForward, Norm, Rope, Shape, gather, linear,
};
use crate::checkpoint::Checkpoint;
use crate::error::{Result, invalid};
use crate::linalg::Matrix;

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// LLaMA and what shares its code (SmolLM2).
    Llama,
    /// Sliding-window attention.
    Mistral,
    /// Biases on q, k and v.
    Qwen2,
    /// A norm on every query and key head.
    Qwen3,
}

impl Variant {
    /// The architectures of this family, as `config.json` names them.
    pub const NAMES: [&str; 4] =
        ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];

    /// The member of that name.
    pub fn of(architecture: &str) -> Option<Variant> {
        let all = [Variant::Llama, Variant::Mistral, Variant::Qwen2, Variant::Qwen3];
        Self::NAMES.iter().position(|n| *n == architecture).map(|i| all[i])
    }
}

/// A model of the family: its configuration.
pub struct Llama {
    variant: Variant,
    shape: Shape,
    prefix: &'static str,
    tied: bool,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    eps: f32,
    rope: Rope,
    window: Option<usize>,
    qkv_bias: bool,
    o_bias: bool,
    mlp_bias: bool,
}

/// No head is wider; what claims to be would take the memory before it is found out.
const WIDEST_HEAD: usize = 1 << 16;

impl Llama {
    /// Reads the configuration.
    pub fn new(checkpoint: &Checkpoint, variant: Variant) -> Result<Llama> {
        let config = Config::of(checkpoint);
        let path = checkpoint.path.display();
        let hidden = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match config.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            None => hidden / heads,
        };
        if heads % kv_heads != 0 || head_dim == 0 || head_dim % 2 != 0 || head_dim > WIDEST_HEAD {
            return invalid!(
                "{path}: config.json: {heads} heads of {head_dim} features with {kv_heads} key/value heads do not fit together"
            );
        }
        let activation = config.get("hidden_act").and_then(|v| v.as_str()).unwrap_or("silu");
        if activation != "silu" && activation != "swish" {
            return invalid!(
                "{path}: config.json: hidden_act {activation} is not supported (silu is)"
            );
        }
        let attention_bias = config.flag("attention_bias", false)?;
        let windowed = match variant {
            Variant::Mistral => true,
            Variant::Llama => false,
            // Qwen applies its window only to layers from max_window_layers on.
            Variant::Qwen2 | Variant::Qwen3 => {
                let on = config.flag("use_sliding_window", false)?;
                let layers = config.size("num_hidden_layers")?;
                if on && config.optional_size("max_window_layers")?.unwrap_or(0) < layers {
                    return invalid!(
                        "{path}: config.json: use_sliding_window is not supported for Qwen"
                    );
                }
                false
            }
        };
        let prefix =
            if checkpoint.tensors().contains_key("embed_tokens.weight") { "" } else { "model." };
        Ok(Llama {
            variant,
            shape: Shape {
                layers: config.size("num_hidden_layers")?,
                hidden,
                vocabulary: config.size("vocab_size")?,
                positions: config.optional_size("max_position_embeddings")?,
                learned_positions: false,
            },
            prefix,
            tied: config.flag("tie_word_embeddings", false)?,
            heads,
            kv_heads,
            head_dim,
            ffn: config.size("intermediate_size")?,
            eps: config.number("rms_norm_eps", 1e-6)? as f32,
            rope: Rope::from_config(&checkpoint.config, head_dim)?,
            window: if windowed { config.optional_size("sliding_window")? } else { None },
            qkv_bias: attention_bias || variant == Variant::Qwen2,
            o_bias: attention_bias,
            mlp_bias: config.flag("mlp_bias", false)?,
        })
    }

    fn rms(&self, checkpoint: &Checkpoint, name: &str) -> Result<Norm> {
        Ok(Norm::Rms { weight: checkpoint.vector(name)?, eps: self.eps })
    }

    /// The linears of a layer: name, shape, whether it has a bias.
    fn projections(&self) -> [(&'static str, [usize; 2], bool); 7] {
        let (d, ff) = (self.shape.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [
            ("self_attn.q_proj", [q, d], self.qkv_bias),
            ("self_attn.k_proj", [kv, d], self.qkv_bias),
            ("self_attn.v_proj", [kv, d], self.qkv_bias),
            ("self_attn.o_proj", [d, q], self.o_bias),
            ("mlp.gate_proj", [ff, d], self.mlp_bias),
            ("mlp.up_proj", [ff, d], self.mlp_bias),
            ("mlp.down_proj", [d, ff], self.mlp_bias),
        ]
    }

    fn embedding(&self) -> String {
        format!("{}embed_tokens.weight", self.prefix)
    }
}

impl Family for Llama {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let d = self.shape.hidden;
        let table = vec![self.shape.vocabulary, d];
        let mut all = vec![
            (self.embedding(), table.clone()),
            (format!("{}norm.weight", self.prefix), vec![d]),
        ];
        if !self.tied {
            all.push((self.head().to_string(), table));
        }
        for i in 0..self.shape.layers {
            let prefix = self.layer_prefix(i);
            for (name, shape, bias) in self.projections() {
                all.push((format!("{prefix}{name}.weight"), shape.to_vec()));
                if bias {
                    all.push((format!("{prefix}{name}.bias"), vec![shape[0]]));
                }
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((format!("{prefix}{norm}.weight"), vec![d]));
            }
            if self.variant == Variant::Qwen3 {
                for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
                    all.push((format!("{prefix}{norm}.weight"), vec![self.head_dim]));
                }
            }
        }
        all
    }

    fn linears(&self) -> Vec<(&'static str, [usize; 2])> {
        self.projections().map(|(name, shape, _)| (name, shape)).to_vec()
    }

    fn embed(&self, checkpoint: &Checkpoint, tokens: &[u32], _seq_len: usize) -> Result<Matrix> {
        gather(checkpoint, &self.embedding(), tokens, self.shape.hidden)
    }

    fn layer_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
    }

    fn layer(&self, checkpoint: &Checkpoint, index: usize) -> Result<DecoderLayer> {
        let prefix = self.layer_prefix(index);
        let load = |i: usize| {
            let (name, _, bias) = self.projections()[i];
            linear(checkpoint, &prefix, name, bias)
        };
        let norm = |name: &str| self.rms(checkpoint, &format!("{prefix}{name}.weight"));
        let head_norm = |name: &str| {
            if self.variant == Variant::Qwen3 { norm(name).map(Some) } else { Ok(None) }
        };
        Ok(DecoderLayer {
            attention: Attention {
                q: load(0)?,
                k: load(1)?,
                v: load(2)?,
                o: load(3)?,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                q_norm: head_norm("self_attn.q_norm")?,
                k_norm: head_norm("self_attn.k_norm")?,
                rope: Some(self.rope.clone()),
                window: self.window,
            },
            ffn: FeedForward::SwiGlu { gate: load(4)?, up: load(5)?, down: load(6)? },
            attention_norm: norm("input_layernorm")?,
            ffn_norm: norm("post_attention_layernorm")?,
            pre_norm: true,
        })
    }

    fn finish(&self, checkpoint: &Checkpoint, hidden: Matrix) -> Result<Matrix> {
        let norm = self.rms(checkpoint, &format!("{}norm.weight", self.prefix))?;
        Ok(norm.forward(hidden.view()))
    }

    fn head(&self) -> &str {
        match (self.tied, self.prefix) {
            (false, _) => "lm_head.weight",
            (true, "") => "embed_tokens.weight",
            (true, _) => "model.embed_tokens.weight",
        }
    }
}

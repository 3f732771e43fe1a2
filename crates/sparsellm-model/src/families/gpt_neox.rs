//! GPT-NeoX and Pythia: attention and a plain network beside each other on the
//! same hidden states, q, k and v interleaved by head in one tensor, and rotary
//! positions on a part of each head.

use crate::{
    Activation, Attention, Block, Config, Embedding, Family, Ffn, HalfNorms, Head, Registration,
    Residual, Rope, Shape, Tensors, rope::RopeDefaults,
};
use sparsellm_base::Result;
use sparsellm_checkpoint::Rows;
use std::sync::Arc;

pub(super) const FAMILY: Registration =
    Registration { architectures: &[("GPTNeoXForCausalLM", "gpt_neox")], open: GptNeoX::open };

/// A GPT-NeoX model: its configuration.
struct GptNeoX {
    shape: Shape,
    tied: bool,
    heads: usize,
    ffn: usize,
    activation: Activation,
    eps: f32,
    rope: Arc<Rope>,
    residual: Residual,
    attention_bias: bool,
}

impl GptNeoX {
    /// Reads the configuration; what it leaves out is transformers' default.
    fn open(_: &str, config: &Config, _: &dyn Fn(&str) -> bool) -> Result<Box<dyn Family>> {
        let size = |key: &str, default: usize| -> Result<usize> {
            Ok(config.optional_size(key)?.unwrap_or(default))
        };
        let (hidden, heads) = (size("hidden_size", 6144)?, size("num_attention_heads", 64)?);
        if hidden % heads != 0 {
            return config
                .fail(format!("hidden_size {hidden} is not a multiple of {heads} heads"));
        }
        let rope = RopeDefaults { theta_keys: &["rotary_emb_base"], partial: ("rotary_pct", 0.25) };
        Ok(Box::new(GptNeoX {
            shape: Shape {
                layers: size("num_hidden_layers", 44)?,
                hidden,
                vocabulary: size("vocab_size", 50_432)?,
                positions: Some(size("max_position_embeddings", 2048)?),
                learned_positions: false,
            },
            tied: config.flag("tie_word_embeddings", false)?,
            heads,
            ffn: size("intermediate_size", 24_576)?,
            activation: config.activation(&["hidden_act"], "gelu")?,
            eps: config.number("layer_norm_eps", 1e-5)? as f32,
            rope: Arc::new(Rope::from_config(config, hidden / heads, rope)?),
            residual: match config.flag("use_parallel_residual", true)? {
                true => Residual::Parallel,
                false => Residual::Serial,
            },
            attention_bias: config.flag("attention_bias", true)?,
        }))
    }
}

impl Family for GptNeoX {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let (vocabulary, d) = (self.shape.vocabulary, self.shape.hidden);
        Ok(Embedding {
            table: t.table("gpt_neox.embed_in.weight", vocabulary, d)?,
            width: d,
            scale: None,
            projection: None,
            positions: None,
        })
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("gpt_neox.layers.{index}.")
    }

    fn block(&self, t: &Tensors, _: usize) -> Result<Block> {
        let (d, ff, bias) = (self.shape.hidden, self.ffn, self.attention_bias);
        let head_dim = d / self.heads;
        // Of each head, the rows of q, then those of k, then those of v.
        let part = |name: &str, place: usize| {
            let (first, stride) = (place * head_dim, 3 * head_dim);
            let rows = Rows { first, length: head_dim, stride, runs: self.heads };
            t.fused(name, "attention.query_key_value", (rows, 3 * d), d, bias)
        };
        let norm = |name: &str| -> Result<HalfNorms> {
            let input = Some(t.layer_norm(name, d, self.eps, true)?);
            Ok(HalfNorms { input, ..HalfNorms::default() })
        };
        Ok(Block {
            attention: Attention {
                q: part("attention.query", 0)?,
                k: part("attention.key", 1)?,
                v: part("attention.value", 2)?,
                o: t.linear("attention.dense", [d, d], bias)?,
                heads: self.heads,
                kv_heads: self.heads,
                head_dim,
                q_norm: None,
                k_norm: None,
                rope: Some(self.rope.clone()),
                window: None,
                scale: Attention::usual_scale(head_dim),
                softcap: None,
            },
            ffn: Ffn::Plain {
                fc1: t.linear("mlp.dense_h_to_4h", [ff, d], true)?,
                fc2: t.linear("mlp.dense_4h_to_h", [d, ff], true)?,
                activation: self.activation,
            },
            attention_norms: norm("input_layernorm")?,
            ffn_norms: norm("post_attention_layernorm")?,
            residual: self.residual,
        })
    }

    fn head(&self, t: &Tensors) -> Result<Head> {
        let (vocabulary, d) = (self.shape.vocabulary, self.shape.hidden);
        let name = if self.tied { "gpt_neox.embed_in.weight" } else { "embed_out.weight" };
        Ok(Head {
            norm: Some(t.layer_norm("gpt_neox.final_layer_norm", d, self.eps, true)?),
            projection: None,
            table: t.table(name, vocabulary, d)?,
            softcap: None,
        })
    }
}

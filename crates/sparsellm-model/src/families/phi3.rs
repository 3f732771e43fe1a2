//! Phi-3, Phi-3.5-mini and Phi-4-mini: LLaMA's block, with q, k and v fused in one
//! tensor and gate and up in another.

use crate::{
    Activation, Attention, Block, Embedding, Family, Ffn, HalfNorms, Head, Opening, Registration,
    Residual, Rope, Shape, Tensors, families::Tables, rope::RopeKeys,
};
use sparsellm_base::Result;
use sparsellm_checkpoint::Rows;
use std::sync::Arc;

pub(super) const FAMILY: Registration = Registration {
    members: &[("Phi3ForCausalLM", "phi3")],
    without_effect: &["embd_pdrop", "resid_pdrop"],
    open: Phi3::open,
};

const ROPE_KEYS: RopeKeys = RopeKeys {
    partial: Some(("partial_rotary_factor", 1.0)),
    original: Some(4096),
    aliases: &[("su", "longrope"), ("yarn", "longrope")],
    ..RopeKeys::LLAMA
};

/// A Phi-3 model: its configuration.
struct Phi3 {
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
    window: Option<usize>,
}

impl Phi3 {
    fn open(opening: &Opening) -> Result<Box<dyn Family>> {
        let config = opening.config;
        let hidden = config.size("hidden_size", 3072)?;
        let heads = config.size("num_attention_heads", 32)?;
        let kv_heads = config.optional_size("num_key_value_heads", None)?.unwrap_or(heads);
        let head_dim = config.optional_size("head_dim", None)?.unwrap_or(hidden / heads);
        if heads % kv_heads != 0 || head_dim == 0 || head_dim > 1 << 16 {
            return config.fail(format!(
                "{heads} heads of {head_dim} features with {kv_heads} key/value heads do not fit together"
            ));
        }
        let positions = config.size("max_position_embeddings", 4096)?;
        let prefix = opening.prefix(&["", "model."], "norm.weight");
        let tied = config.flag("tie_word_embeddings", false)?;
        Ok(Box::new(Phi3 {
            shape: Shape {
                layers: config.size("num_hidden_layers", 32)?,
                hidden,
                vocabulary: config.size("vocab_size", 32_064)?,
                positions: Some(positions),
                learned_positions: false,
            },
            prefix,
            tables: opening.tables(format!("{prefix}embed_tokens.weight"), "lm_head.weight", tied),
            heads,
            kv_heads,
            head_dim,
            ffn: config.size("intermediate_size", 8192)?,
            activation: config.activation("hidden_act", "silu")?,
            eps: config.number("rms_norm_eps", 1e-5)? as f32,
            rope: Arc::new(Rope::from_config(config, head_dim, positions, ROPE_KEYS)?),
            window: config.optional_size("sliding_window", None)?,
        }))
    }
}

impl Family for Phi3 {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let d = self.shape.hidden;
        let table = t.table(&self.tables.embedding, self.shape.vocabulary, d)?;
        Ok(Embedding::rows_of(table, d))
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
    }

    fn block(&self, t: &Tensors, _: usize) -> Result<Block> {
        let (d, ff) = (self.shape.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let attention = |name: &str, rows: std::ops::Range<usize>| {
            let rows = (Rows::range(rows), q + 2 * kv);
            t.fused(name, "self_attn.qkv_proj", rows, d, false)
        };
        let network = |name: &str, rows: std::ops::Range<usize>| {
            t.fused(name, "mlp.gate_up_proj", (Rows::range(rows), 2 * ff), d, false)
        };
        let norm = |name: &str| -> Result<HalfNorms> {
            Ok(HalfNorms::before(t.rms_norm(&format!("{name}.weight"), d, self.eps)?))
        };
        Ok(Block {
            attention: Attention {
                q: attention("self_attn.q_proj", 0..q)?,
                k: attention("self_attn.k_proj", q..q + kv)?,
                v: attention("self_attn.v_proj", q + kv..q + 2 * kv)?,
                o: t.linear("self_attn.o_proj", [d, q], false)?,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                q_norm: None,
                k_norm: None,
                rope: Some(self.rope.clone()),
                window: self.window,
                scale: Attention::usual_scale(self.head_dim),
                softcap: None,
            },
            ffn: Ffn::Gated {
                gate: network("mlp.gate_proj", 0..ff)?,
                up: network("mlp.up_proj", ff..2 * ff)?,
                down: t.linear("mlp.down_proj", [d, ff], false)?,
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

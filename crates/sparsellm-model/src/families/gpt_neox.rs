//! GPT-NeoX and Pythia: attention and a plain network beside each other on the
//! same hidden states, q, k and v interleaved by head in one tensor, and rotary
//! positions on a part of each head.

use crate::{
    Activation, Attention, Block, Embedding, Family, Ffn, HalfNorms, Head, Opening, Registration,
    Residual, Rope, Shape, Tensors, families::Tables, rope::RopeKeys,
};
use sparsellm_base::Result;
use sparsellm_checkpoint::Rows;
use std::sync::Arc;

pub(super) const FAMILY: Registration = Registration {
    members: &[("GPTNeoXForCausalLM", "gpt_neox")],
    without_effect: &["classifier_dropout", "hidden_dropout", "is_decoder"],
    open: GptNeoX::open,
};

/// A GPT-NeoX model: its configuration.
struct GptNeoX {
    shape: Shape,
    prefix: &'static str,
    tables: Tables,
    heads: usize,
    ffn: usize,
    activation: Activation,
    eps: f32,
    rope: Arc<Rope>,
    residual: Residual,
    attention_bias: bool,
}

impl GptNeoX {
    fn open(opening: &Opening) -> Result<Box<dyn Family>> {
        let config = opening.config;
        let hidden = config.size("hidden_size", 6144)?;
        let heads = config.size("num_attention_heads", 64)?;
        if hidden % heads != 0 {
            return config
                .fail(format!("hidden_size {hidden} is not a multiple of {heads} heads"));
        }
        let positions = config.size("max_position_embeddings", 2048)?;
        let keys = RopeKeys {
            theta: "rotary_emb_base",
            partial: Some(("rotary_pct", 0.25)),
            ..RopeKeys::LLAMA
        };
        let prefix = opening.prefix(&["", "gpt_neox."], "final_layer_norm.weight");
        let tied = config.flag("tie_word_embeddings", false)?;
        // As transformers 5 calls it in memory, and so in files that `torch.save` wrote.
        let renamed = (opening.has_tensor)("lm_head.weight");
        let head = if renamed { "lm_head.weight" } else { "embed_out.weight" };
        Ok(Box::new(GptNeoX {
            shape: Shape {
                layers: config.size("num_hidden_layers", 44)?,
                hidden,
                vocabulary: config.size("vocab_size", 50_432)?,
                positions: Some(positions),
                learned_positions: false,
            },
            prefix,
            tables: opening.tables(format!("{prefix}embed_in.weight"), head, tied),
            heads,
            ffn: config.size("intermediate_size", 24_576)?,
            activation: config.activation("hidden_act", "gelu")?,
            eps: config.number("layer_norm_eps", 1e-5)? as f32,
            rope: Arc::new(Rope::from_config(config, hidden / heads, positions, keys)?),
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
        let table = t.table(&self.tables.embedding, vocabulary, d)?;
        Ok(Embedding::rows_of(table, d))
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
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
            Ok(HalfNorms::before(t.layer_norm(name, d, self.eps, true)?))
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
        Ok(Head {
            norm: Some(t.under(self.prefix).layer_norm("final_layer_norm", d, self.eps, true)?),
            projection: None,
            table: t.optional_table(self.tables.head.as_deref(), vocabulary, d)?,
            softcap: None,
        })
    }
}

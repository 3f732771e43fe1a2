//! OPT, every size: learned positions with an offset of 2, LayerNorm before or
//! after each block, an optional projection around the decoder (350M), ReLU or
//! gelu (Galactica), a tied head.

use crate::{
    Activation, Attention, Block, Embedding, Family, Ffn, HalfNorms, Head, LearnedPositions,
    Linear, Norm, Opening, Registration, Residual, Shape, Tensors, families::Tables,
};
use sparsellm_base::Result;

pub(super) const FAMILY: Registration = Registration {
    members: &[("OPTForCausalLM", "opt")],
    without_effect: &["dropout", "init_std", "layerdrop"],
    open: Opt::open,
};

/// OPT's position table starts with two rows that are never used.
const POSITION_OFFSET: usize = 2;
/// OPT's layer norms have PyTorch's default ε.
const EPS: f32 = 1e-5;

/// An OPT model: its configuration.
struct Opt {
    shape: Shape,
    prefix: &'static str,
    tables: Tables,
    heads: usize,
    ffn: usize,
    /// The width of the embeddings, which differs from that of the hidden states in OPT-350M.
    embedding: usize,
    positions: usize,
    activation: Activation,
    norm_before: bool,
    final_norm: bool,
    bias: bool,
    affine: bool,
}

impl Opt {
    fn open(opening: &Opening) -> Result<Box<dyn Family>> {
        let config = opening.config;
        let hidden = config.size("hidden_size", 768)?;
        let heads = config.size("num_attention_heads", 12)?;
        if hidden % heads != 0 {
            return config
                .fail(format!("hidden_size {hidden} is not a multiple of {heads} heads"));
        }
        let prefixes = ["", "decoder.", "model.decoder."];
        let prefix = opening.prefix(&prefixes, "embed_positions.weight");
        let tied = config.flag("tie_word_embeddings", true)?;
        let positions = config.size("max_position_embeddings", 2048)?;
        let norm_before = config.flag("do_layer_norm_before", true)?;
        let without_final_norm = config.flag("_remove_final_layer_norm", false)?;
        Ok(Box::new(Opt {
            shape: Shape {
                layers: config.size("num_hidden_layers", 12)?,
                hidden,
                vocabulary: config.size("vocab_size", 50_272)?,
                positions: Some(positions),
                learned_positions: true,
            },
            prefix,
            tables: opening.tables(format!("{prefix}embed_tokens.weight"), "lm_head.weight", tied),
            heads,
            ffn: config.size("ffn_dim", 3072)?,
            embedding: config.optional_size("word_embed_proj_dim", None)?.unwrap_or(hidden),
            positions,
            activation: config.activation("activation_function", "relu")?,
            norm_before,
            final_norm: norm_before && !without_final_norm,
            bias: config.flag("enable_bias", true)?,
            affine: config.flag("layer_norm_elementwise_affine", true)?,
        }))
    }

    /// A projection between the embeddings' width and that of the hidden states.
    fn projection(&self, t: &Tensors, name: &str, shape: [usize; 2]) -> Result<Option<Linear>> {
        match self.embedding == self.shape.hidden {
            true => Ok(None),
            false => t.under(self.prefix).linear(name, shape, false).map(Some),
        }
    }

    /// The norm of a half, in the place where this model has it.
    fn norms(&self, norm: Norm) -> HalfNorms {
        match self.norm_before {
            true => HalfNorms::before(norm),
            false => HalfNorms { sum: Some(norm), ..HalfNorms::default() },
        }
    }
}

impl Family for Opt {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn embedding(&self, t: &Tensors) -> Result<Embedding> {
        let (d, e) = (self.shape.hidden, self.embedding);
        let inner = t.under(self.prefix);
        let rows = self.positions + POSITION_OFFSET;
        Ok(Embedding {
            table: t.table(&self.tables.embedding, self.shape.vocabulary, e)?,
            width: e,
            scale: None,
            projection: self.projection(t, "project_in", [d, e])?,
            positions: Some(LearnedPositions {
                table: inner.table("embed_positions.weight", rows, d)?,
                offset: POSITION_OFFSET,
            }),
        })
    }

    fn block_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
    }

    fn block(&self, t: &Tensors, _: usize) -> Result<Block> {
        let (d, ff, bias) = (self.shape.hidden, self.ffn, self.bias);
        let norm = |name: &str| t.layer_norm(name, d, EPS, self.affine);
        let head_dim = d / self.heads;
        Ok(Block {
            attention: Attention {
                q: t.linear("self_attn.q_proj", [d, d], bias)?,
                k: t.linear("self_attn.k_proj", [d, d], bias)?,
                v: t.linear("self_attn.v_proj", [d, d], bias)?,
                o: t.linear("self_attn.out_proj", [d, d], bias)?,
                heads: self.heads,
                kv_heads: self.heads,
                head_dim,
                q_norm: None,
                k_norm: None,
                rope: None,
                window: None,
                scale: Attention::usual_scale(head_dim),
                softcap: None,
            },
            ffn: Ffn::Plain {
                fc1: t.linear("fc1", [ff, d], bias)?,
                fc2: t.linear("fc2", [d, ff], bias)?,
                activation: self.activation,
            },
            attention_norms: self.norms(norm("self_attn_layer_norm")?),
            ffn_norms: self.norms(norm("final_layer_norm")?),
            residual: Residual::Serial,
        })
    }

    fn head(&self, t: &Tensors) -> Result<Head> {
        let (d, e) = (self.shape.hidden, self.embedding);
        let inner = t.under(self.prefix);
        let norm = match self.final_norm {
            true => Some(inner.layer_norm("final_layer_norm", d, EPS, self.affine)?),
            false => None,
        };
        Ok(Head {
            norm,
            projection: self.projection(t, "project_out", [e, d])?,
            table: t.optional_table(self.tables.head.as_deref(), self.shape.vocabulary, e)?,
            softcap: None,
        })
    }
}

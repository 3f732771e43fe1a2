//! OPT, every size: learned positions with an offset of 2, LayerNorm before or
//! after each block, an optional projection around the decoder (350M), ReLU or
//! gelu (Galactica), a tied head.

use super::{
    Activation, Attention, Config, DecoderLayer, Family, FeedForward, Linear, Norm, Shape, gather,
    linear,
};
use crate::checkpoint::Checkpoint;
use crate::error::{Result, invalid};
use crate::linalg::Matrix;

/// OPT's position table starts with two rows that are never used.
const POSITION_OFFSET: usize = 2;
/// OPT uses PyTorch's default.
const EPS: f32 = 1e-5;

/// An OPT model: its configuration.
pub struct Opt {
    shape: Shape,
    prefix: String,
    head: String,
    heads: usize,
    ffn: usize,
    /// Width of the embeddings; differs from the hidden width in OPT-350M.
    embedding: usize,
    positions: usize,
    activation: Activation,
    pre_norm: bool,
    final_norm: bool,
    bias: bool,
    affine: bool,
}

impl Opt {
    /// Reads the configuration.
    pub fn new(checkpoint: &Checkpoint) -> Result<Opt> {
        let config = Config::of(checkpoint);
        let path = checkpoint.path.display();
        let hidden = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        if hidden % heads != 0 {
            return invalid!(
                "{path}: config.json: hidden_size {hidden} is not a multiple of {heads} heads"
            );
        }
        let name = config.get("activation_function").and_then(|v| v.as_str()).unwrap_or("relu");
        let activation = match name {
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            other => {
                return invalid!(
                    "{path}: config.json: activation_function {other} is not supported (relu and gelu are)"
                );
            }
        };
        // transformers, the OPT repositories and bare OPTModel files differ in
        // how much of the name they keep.
        let prefix = ["model.decoder.", "decoder.", ""]
            .into_iter()
            .find(|p| checkpoint.tensors().contains_key(&format!("{p}embed_tokens.weight")))
            .unwrap_or("model.decoder.")
            .to_string();
        let positions = config.size("max_position_embeddings")?;
        let pre_norm = config.flag("do_layer_norm_before", true)?;
        let tied = config.flag("tie_word_embeddings", true)?;
        Ok(Opt {
            shape: Shape {
                layers: config.size("num_hidden_layers")?,
                hidden,
                vocabulary: config.size("vocab_size")?,
                positions: Some(positions),
                learned_positions: true,
            },
            head: if tied {
                format!("{prefix}embed_tokens.weight")
            } else {
                "lm_head.weight".into()
            },
            heads,
            ffn: config.size("ffn_dim")?,
            embedding: config.optional_size("word_embed_proj_dim")?.unwrap_or(hidden),
            positions,
            activation,
            pre_norm,
            final_norm: pre_norm && !config.flag("_remove_final_layer_norm", false)?,
            bias: config.flag("enable_bias", true)?,
            affine: config.flag("layer_norm_elementwise_affine", true)?,
            prefix,
        })
    }

    fn norm(&self, checkpoint: &Checkpoint, name: &str) -> Result<Norm> {
        let read = |part: &str| -> Result<Option<Vec<f32>>> {
            if !self.affine {
                return Ok(None);
            }
            checkpoint.vector(&format!("{name}.{part}")).map(Some)
        };
        Ok(Norm::Layer { weight: read("weight")?, bias: read("bias")?, eps: EPS })
    }

    fn projection(&self, checkpoint: &Checkpoint, name: &'static str) -> Result<Option<Linear>> {
        if self.embedding == self.shape.hidden {
            return Ok(None);
        }
        linear(checkpoint, &self.prefix, name, false).map(Some)
    }

    /// The linears of a layer and their shapes.
    fn projections(&self) -> [(&'static str, [usize; 2]); 6] {
        let (d, ff) = (self.shape.hidden, self.ffn);
        [
            ("self_attn.q_proj", [d, d]),
            ("self_attn.k_proj", [d, d]),
            ("self_attn.v_proj", [d, d]),
            ("self_attn.out_proj", [d, d]),
            ("fc1", [ff, d]),
            ("fc2", [d, ff]),
        ]
    }
}

impl Family for Opt {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, e, p) = (self.shape.hidden, self.embedding, &self.prefix);
        let mut all = vec![
            (format!("{p}embed_tokens.weight"), vec![self.shape.vocabulary, e]),
            (format!("{p}embed_positions.weight"), vec![self.positions + POSITION_OFFSET, d]),
            (self.head.clone(), vec![self.shape.vocabulary, e]),
        ];
        if e != d {
            all.push((format!("{p}project_in.weight"), vec![d, e]));
            all.push((format!("{p}project_out.weight"), vec![e, d]));
        }
        let mut norms = Vec::new();
        if self.final_norm {
            norms.push(format!("{p}final_layer_norm"));
        }
        for i in 0..self.shape.layers {
            let prefix = self.layer_prefix(i);
            for (name, shape) in self.projections() {
                all.push((format!("{prefix}{name}.weight"), shape.to_vec()));
                if self.bias {
                    all.push((format!("{prefix}{name}.bias"), vec![shape[0]]));
                }
            }
            norms.push(format!("{prefix}self_attn_layer_norm"));
            norms.push(format!("{prefix}final_layer_norm"));
        }
        if self.affine {
            for norm in norms {
                all.push((format!("{norm}.weight"), vec![d]));
                all.push((format!("{norm}.bias"), vec![d]));
            }
        }
        all
    }

    fn linears(&self) -> Vec<(&'static str, [usize; 2])> {
        self.projections().to_vec()
    }

    fn embed(&self, checkpoint: &Checkpoint, tokens: &[u32], seq_len: usize) -> Result<Matrix> {
        let name = format!("{}embed_tokens.weight", self.prefix);
        let mut hidden = gather(checkpoint, &name, tokens, self.embedding)?;
        if let Some(project_in) = self.projection(checkpoint, "project_in")? {
            hidden = project_in.forward(hidden.view());
        }
        let name = format!("{}embed_positions.weight", self.prefix);
        let d = self.shape.hidden;
        let table = checkpoint.rows(&name, POSITION_OFFSET..POSITION_OFFSET + seq_len, d)?;
        for (t, row) in hidden.data.chunks_exact_mut(d).enumerate() {
            row.iter_mut().zip(table.row(t % seq_len)).for_each(|(h, p)| *h += p);
        }
        Ok(hidden)
    }

    fn layer_prefix(&self, index: usize) -> String {
        format!("{}layers.{index}.", self.prefix)
    }

    fn layer(&self, checkpoint: &Checkpoint, index: usize) -> Result<DecoderLayer> {
        let prefix = self.layer_prefix(index);
        let load = |i: usize| linear(checkpoint, &prefix, self.projections()[i].0, self.bias);
        Ok(DecoderLayer {
            attention: Attention {
                q: load(0)?,
                k: load(1)?,
                v: load(2)?,
                o: load(3)?,
                heads: self.heads,
                kv_heads: self.heads,
                head_dim: self.shape.hidden / self.heads,
                q_norm: None,
                k_norm: None,
                rope: None,
                window: None,
            },
            ffn: FeedForward::Mlp { fc1: load(4)?, fc2: load(5)?, activation: self.activation },
            attention_norm: self.norm(checkpoint, &format!("{prefix}self_attn_layer_norm"))?,
            ffn_norm: self.norm(checkpoint, &format!("{prefix}final_layer_norm"))?,
            pre_norm: self.pre_norm,
        })
    }

    fn finish(&self, checkpoint: &Checkpoint, hidden: Matrix) -> Result<Matrix> {
        let mut hidden = hidden;
        if self.final_norm {
            let norm = self.norm(checkpoint, &format!("{}final_layer_norm", self.prefix))?;
            hidden = norm.forward(hidden.view());
        }
        match self.projection(checkpoint, "project_out")? {
            Some(project_out) => Ok(project_out.forward(hidden.view())),
            None => Ok(hidden),
        }
    }

    fn head(&self) -> &str {
        &self.head
    }
}

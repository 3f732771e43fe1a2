//! Decoder-only language models: the interface every family meets, and the
//! decoder layer they share.

mod attention;
mod layer;
mod llama;
mod norm;
mod opt;
mod rope;

pub use attention::Attention;
pub use layer::{Activation, DecoderLayer, FeedForward, Group, Linear};
pub use norm::Norm;
pub use rope::Rope;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result, invalid};
use crate::linalg::Matrix;
use serde_json::Value;
use std::path::Path;

const OPT: &str = "OPTForCausalLM";

/// What a model family knows: its names in the checkpoint and how its pieces
/// fit together. A new family is one file that implements this.
pub trait Family: Send + Sync {
    /// Sizes that do not depend on the family.
    fn shape(&self) -> Shape;

    /// Every tensor the forward pass reads, with the shape it must have.
    fn tensors(&self) -> Vec<(String, Vec<usize>)>;

    /// The linears of a decoder layer: name and shape `[d_out, d_in]`.
    fn linears(&self) -> Vec<(&'static str, [usize; 2])>;

    /// Hidden states of whole segments: `[tokens, d]`.
    fn embed(&self, checkpoint: &Checkpoint, tokens: &[u32], seq_len: usize) -> Result<Matrix>;

    /// The prefix of decoder layer `index`'s tensors, e.g. `model.layers.3.`.
    fn layer_prefix(&self, index: usize) -> String;

    /// Decoder layer `index`, in f32.
    fn layer(&self, checkpoint: &Checkpoint, index: usize) -> Result<DecoderLayer>;

    /// What turns the last hidden states into the head's input: the final norm
    /// and, in some OPT models, a projection.
    fn finish(&self, checkpoint: &Checkpoint, hidden: Matrix) -> Result<Matrix>;

    /// The tensor `[vocabulary, d]` whose rows give the logits.
    fn head(&self) -> &str;
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of decoder layers.
    pub layers: usize,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Positions the model was made for, where its configuration says.
    pub positions: Option<usize>,
    /// Whether positions are learned, so that a longer segment is impossible.
    pub learned_positions: bool,
}

/// A checkpoint with its family.
pub struct Model {
    /// The weights.
    pub checkpoint: Checkpoint,
    /// How they fit together.
    pub family: Box<dyn Family>,
    /// The architecture's name in `config.json`, e.g. `LlamaForCausalLM`.
    pub architecture: String,
}

impl Model {
    /// Opens a model and checks that every tensor it needs is there with the
    /// right shape.
    ///
    /// # Errors
    /// Where the path is no model, the architecture is not supported, or a
    /// tensor is missing or misshapen.
    pub fn open(path: &Path) -> Result<Model> {
        let checkpoint = Checkpoint::open(path)?;
        let architecture = architecture(&checkpoint.config, path)?;
        let family: Box<dyn Family> = match llama::Variant::of(&architecture) {
            Some(variant) => Box::new(llama::Llama::new(&checkpoint, variant)?),
            None => Box::new(opt::Opt::new(&checkpoint)?),
        };
        let (layers, stored) = (family.shape().layers, checkpoint.tensors().len());
        if layers > stored {
            return invalid!(
                "{}: config.json says {layers} decoder layers, but there are only {stored} tensors",
                path.display()
            );
        }
        for (name, shape) in family.tensors() {
            checkpoint.expect(&name, &shape)?;
        }
        Ok(Model { checkpoint, family, architecture })
    }

    /// Sizes of the model.
    pub fn shape(&self) -> Shape {
        self.family.shape()
    }

    /// Decoder layer `index`, in f32. The system is told to read the next one.
    pub fn layer(&self, index: usize) -> Result<DecoderLayer> {
        let mut layer = self.family.layer(&self.checkpoint, index)?;
        layer.pack();
        self.checkpoint.release();
        self.checkpoint.prefetch(&self.family.layer_prefix(index + 1));
        Ok(layer)
    }

    /// Hidden states of whole segments; every id must be in the vocabulary.
    pub fn embed(&self, tokens: &[u32], seq_len: usize) -> Result<Matrix> {
        let vocabulary = self.shape().vocabulary;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return invalid!(
                "token id {id} is outside the model's vocabulary of {vocabulary}; the text was tokenised for another model"
            );
        }
        let hidden = self.family.embed(&self.checkpoint, tokens, seq_len)?;
        self.checkpoint.release();
        Ok(hidden)
    }

    /// Fails where segments of `seq_len` tokens are longer than the model's
    /// learned positions.
    pub fn check_seq_len(&self, seq_len: usize) -> Result<()> {
        let shape = self.shape();
        match shape.positions {
            Some(max) if shape.learned_positions && seq_len > max => Err(Error::Usage(format!(
                "--seq-len {seq_len} is longer than the model's {max} learned positions"
            ))),
            _ if seq_len < 2 => Err(Error::Usage("--seq-len must be at least 2".into())),
            _ => Ok(()),
        }
    }
}

/// `architectures[0]` in the `config.json` at `path`, which must be one that is
/// supported.
pub(crate) fn architecture(config: &Value, path: &Path) -> Result<String> {
    let name = config.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
    let name = match (name, config.get("model_type").and_then(Value::as_str)) {
        (Some(name), _) => name,
        (None, Some("opt")) => OPT,
        (None, Some("llama")) => "LlamaForCausalLM",
        _ => {
            return invalid!(
                "{}: config.json names no architecture (\"architectures\": [..])",
                path.display()
            );
        }
    };
    if name != OPT && llama::Variant::of(name).is_none() {
        return invalid!(
            "{}: architecture {name} is not supported; supported are {OPT}, {}",
            path.display(),
            llama::Variant::NAMES.join(", ")
        );
    }
    Ok(name.to_string())
}

/// Typed access to `config.json`, with errors that name the key.
pub(crate) struct Config<'a> {
    json: &'a Value,
    path: &'a Path,
}

impl<'a> Config<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Self {
        Config { json: &checkpoint.config, path: &checkpoint.path }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    /// A size: a whole number from 1 to 2³¹.
    fn size(&self, key: &str) -> Result<usize> {
        match self.optional_size(key)? {
            Some(size) => Ok(size),
            None => invalid!("{}: config.json has no \"{key}\"", self.path.display()),
        }
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=0x8000_0000) => Ok(Some(size as usize)),
            _ => invalid!(
                "{}: config.json: \"{key}\" is {value}; a positive whole number was expected",
                self.path.display()
            ),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(value) => invalid!(
                "{}: config.json: \"{key}\" is {value}; true or false was expected",
                self.path.display()
            ),
        }
    }

    /// A number of at least 0.
    fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64().filter(|v| *v >= 0.0) {
            Some(number) => Ok(number),
            None => invalid!(
                "{}: config.json: \"{key}\" is {value}; a number of at least 0 was expected",
                self.path.display()
            ),
        }
    }
}

/// Rows `ids` of an embedding table with `cols` columns.
fn gather(checkpoint: &Checkpoint, name: &str, ids: &[u32], cols: usize) -> Result<Matrix> {
    let mut out = Matrix::zeros(ids.len(), cols);
    for (row, &id) in out.data.chunks_exact_mut(cols).zip(ids) {
        let at = id as usize * cols;
        row.copy_from_slice(&checkpoint.read(name, at..at + cols)?);
    }
    Ok(out)
}

/// A linear `prefix + name` with its bias, if it has one.
fn linear(checkpoint: &Checkpoint, prefix: &str, name: &'static str, bias: bool) -> Result<Linear> {
    let weight = checkpoint.matrix(&format!("{prefix}{name}.weight"))?;
    let bias = if bias { Some(checkpoint.vector(&format!("{prefix}{name}.bias"))?) } else { None };
    Ok(Linear::new(name, weight, bias))
}

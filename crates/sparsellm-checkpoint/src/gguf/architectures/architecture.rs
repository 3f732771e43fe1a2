//! The description of an architecture: its tensors in llama.cpp's terms and in Hugging
//! Face's, and its configuration.

use crate::Dtype;
use serde_json::Value;
use sparsellm_base::Result;

use crate::gguf::{dimensions::Dimensions, settings::Settings};

/// An architecture as llama.cpp stores it.
pub(in crate::gguf) struct Architecture {
    /// llama.cpp's name, with which the metadata keys begin.
    pub name: &'static str,
    /// The model's class in transformers, and its `model_type`.
    pub class: (&'static str, &'static str),
    /// The type of the checkpoints that the model's makers published, and of the output. What
    /// was made for bfloat16 may not run in half precision, whose range is narrower.
    pub dtype: Dtype,
    /// The tensors outside the decoder layers.
    pub outer: &'static [Tensor],
    /// What a decoder layer's tensors begin with, before its number, in Hugging Face's names.
    pub layers: &'static str,
    /// The tensors of each decoder layer.
    pub layer: &'static [Tensor],
    /// The fields of `config.json` besides those that all architectures have.
    pub config: fn(&Settings<'_>) -> Result<Value>,
}

/// A tensor of an architecture.
pub(in crate::gguf) struct Tensor {
    /// llama.cpp's name (without the `blk.N.` of a layer).
    name: &'static str,
    /// Hugging Face's name (without a layer's prefix).
    hf: &'static str,
    shape: &'static [Size],
    change: Change,
    required: bool,
}

/// A dimension of a tensor.
#[derive(Clone, Copy)]
pub(in crate::gguf) enum Size {
    /// Number of token ids.
    Vocabulary,
    /// Width of the hidden states.
    Hidden,
    /// Width of the feed-forward network.
    Intermediate,
    /// All query heads.
    Queries,
    /// All key heads, or all value heads.
    Keys,
    /// One head.
    Head,
    /// The queries, keys and values of all heads.
    Fused,
}

/// What llama.cpp's converter does to a tensor, and reading undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gguf) enum Change {
    /// Nothing.
    None,
    /// It interleaves the two halves of each query head's rows.
    InterleaveQueries,
    /// It interleaves the two halves of each key head's rows.
    InterleaveKeys,
    /// It collects the queries of all heads, then their keys, then their values, which
    /// Hugging Face keeps head by head.
    CollectHeads,
    /// It adds 1 to each element.
    AddOne,
}

/// The role of a tensor in a model.
#[derive(Debug, PartialEq)]
pub(in crate::gguf) struct Role {
    /// The tensor's name in a Hugging Face checkpoint.
    pub name: String,
    /// The tensor's row-major shape.
    pub shape: Vec<usize>,
    /// What reading has to undo.
    pub change: Change,
}

impl Tensor {
    /// A tensor that every model has, stored as it is.
    pub const fn new(name: &'static str, hf: &'static str, shape: &'static [Size]) -> Tensor {
        Tensor { name, hf, shape, change: Change::None, required: true }
    }

    /// The same, changed by the converter.
    pub const fn with(self, change: Change) -> Tensor {
        Tensor { change, ..self }
    }

    /// The same, if only some models have it.
    pub const fn optional(self) -> Tensor {
        Tensor { required: false, ..self }
    }

    fn role(&self, prefix: &str, d: &Dimensions) -> Role {
        Role {
            name: format!("{prefix}{}", self.hf),
            shape: self.shape.iter().map(|size| size.of(d)).collect(),
            change: self.change,
        }
    }
}

impl Size {
    fn of(self, d: &Dimensions) -> usize {
        match self {
            Size::Vocabulary => d.vocab,
            Size::Hidden => d.hidden,
            Size::Intermediate => d.intermediate,
            Size::Queries => d.heads * d.head_dim,
            Size::Keys => d.kv_heads * d.head_dim,
            Size::Head => d.head_dim,
            Size::Fused => (d.heads + 2 * d.kv_heads) * d.head_dim,
        }
    }
}

impl Architecture {
    /// The role of llama.cpp's tensor `name`; `None` if the architecture has no such tensor.
    pub fn role(&self, name: &str, d: &Dimensions) -> Option<Role> {
        if let Some(tensor) = self.outer.iter().find(|tensor| tensor.name == name) {
            return Some(tensor.role("", d));
        }
        let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
        let layer: usize = layer.parse().ok().filter(|n| *n < d.layers)?;
        let tensor = self.layer.iter().find(|tensor| tensor.name == part)?;
        Some(tensor.role(&self.prefix(layer), d))
    }

    /// The Hugging Face names that a model of `layers` layers must have.
    pub fn required(&self, layers: usize) -> impl Iterator<Item = String> {
        let named = |prefix: String, tensors: &'static [Tensor]| {
            let required = tensors.iter().filter(|tensor| tensor.required);
            required.map(move |tensor| format!("{prefix}{}", tensor.hf))
        };
        let layer = move |index| named(self.prefix(index), self.layer);
        named(String::new(), self.outer).chain((0..layers).flat_map(layer))
    }

    /// The Hugging Face name of the output head, if it can differ from the embedding.
    pub fn head(&self) -> Option<&'static str> {
        let head = self.outer.iter().find(|tensor| tensor.name == "output.weight");
        head.map(|tensor| tensor.hf)
    }

    /// What the Hugging Face names of a layer's tensors begin with.
    pub fn prefix(&self, layer: usize) -> String {
        format!("{}{layer}.", self.layers)
    }
}

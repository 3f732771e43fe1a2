//! `config.json` as transformers reads it.

use serde_json::Value;
use sparsellm_base::{Result, input_error};
use sparsellm_checkpoint::Checkpoint;
use sparsellm_tensor::Activation;
use std::{cell::RefCell, collections::BTreeMap, path::Path};

/// Fields of transformers' configuration classes that change nothing that is computed here,
/// in any family: bookkeeping, training, generation and classification.
pub const WITHOUT_EFFECT: &[&str] = &[
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "transformers_version",
    "use_cache",
];

/// Typed access to `config.json`, with errors that name the field.
///
/// A field that is absent has the default that transformers' configuration class gives it.
/// Which fields were asked for, and with which defaults, is remembered: a test compares
/// that with the classes, so that no field of theirs is overlooked.
pub struct Config<'a> {
    json: &'a Value,
    path: &'a Path,
    asked: RefCell<BTreeMap<String, Value>>,
}

impl<'a> Config<'a> {
    /// The configuration of a checkpoint.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Config::from_json(&checkpoint.config, &checkpoint.path)
    }

    /// The configuration `json`, which errors say is that of the model at `path`.
    pub fn from_json(json: &'a Value, path: &'a Path) -> Self {
        Config { json, path, asked: RefCell::default() }
    }

    /// The fields that were asked for so far, with the defaults they have when absent; null
    /// where the default follows from other fields.
    pub fn asked(&self) -> BTreeMap<String, Value> {
        self.asked.borrow().clone()
    }

    /// The value of a field, null included, if it is present.
    fn field(&self, key: &str, default: impl Into<Value>) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key.to_string(), default.into());
        self.json.get(key)
    }

    /// The value of a field that has no default, if it is present and not null.
    pub(crate) fn optional(&self, key: &str) -> Option<&'a Value> {
        self.field(key, Value::Null).filter(|value| !value.is_null())
    }

    /// A size: a whole number from 1 to 2³¹.
    pub(crate) fn size(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_size(key, Some(default))?.unwrap_or(default))
    }

    /// A size that may be null, which means none.
    pub(crate) fn optional_size(&self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.field(key, default) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size @ 1..=0x8000_0000) => Ok(Some(size as usize)),
                _ => self.expected(key, value, "a positive whole number"),
            },
        }
    }

    /// A whole number from 0 to 2³¹.
    pub(crate) fn count(&self, key: &str, default: usize) -> Result<usize> {
        match self.field(key, default) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_u64() {
                Some(count @ 0..=0x8000_0000) => Ok(count as usize),
                _ => self.expected(key, value, "a whole number of at least 0"),
            },
        }
    }

    /// A truth value.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.field(key, default) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => self.expected(key, value, "true or false"),
        }
    }

    /// A number of at least 0.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.field(key, default) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_f64().filter(|number| *number >= 0.0) {
                Some(number) => Ok(number),
                None => self.expected(key, value, "a number of at least 0"),
            },
        }
    }

    /// A number above 0 that may be null, which means none.
    pub(crate) fn optional_positive(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.field(key, default) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
                Some(number) => Ok(Some(number)),
                None => self.expected(key, value, "a positive number"),
            },
        }
    }

    /// An activation, by its name in transformers.
    pub(crate) fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = match self.field(key, default) {
            None | Some(Value::Null) => default,
            Some(Value::String(name)) => name,
            Some(value) => return self.expected(key, value, "a name"),
        };
        match Activation::from_name(name) {
            Some(activation) => Ok(activation),
            None => self.fail(format!(
                "{key} {name} is not supported (relu, silu, gelu and its tanh form are)"
            )),
        }
    }

    /// The window of each of `layers` layers: `window` in those that `layer_types` calls
    /// `sliding_attention` or, where there is no such field, in those that `slides` says.
    pub(crate) fn layer_windows(
        &self,
        layers: usize,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>> {
        let Some(types) = self.optional("layer_types") else {
            // A configuration that claims more layers is corrupt, and refused later.
            return Ok((0..layers.min(1 << 20)).map(|i| window.filter(|_| slides(i))).collect());
        };
        let types = types.as_array().map(Vec::as_slice).unwrap_or_default();
        if types.len() != layers {
            return self.fail(format!("layer_types does not list {layers} layers"));
        }
        let of = |kind: &Value| {
            match (kind.as_str(), window) {
            (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
            (Some("sliding_attention"), None) => self.fail(
                "layer_types names sliding_attention, but there is no sliding_window (or use_sliding_window is false)",
            ),
            (Some("full_attention" | "attention"), _) => Ok(None),
            _ => self.fail(format!("layer_types: {kind} is not supported")),
        }
        };
        types.iter().map(of).collect()
    }

    /// Refuses a field that would change what is computed: it may only have the value that is
    /// its default. Null and false are alike.
    pub(crate) fn only(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        let only: Value = value.into();
        let off = |value: &Value| value.is_null() || *value == false;
        match self.field(key, only.clone()) {
            Some(given) if *given != only && !given.is_null() && !(off(given) && off(&only)) => {
                self.fail(format!("\"{key}\": {given} is not supported ({only} is)"))
            }
            _ => Ok(()),
        }
    }

    fn expected<T>(&self, key: &str, value: &Value, what: &str) -> Result<T> {
        self.fail(format!("\"{key}\" is {value}; {what} was expected"))
    }

    /// An error that names the file.
    pub(crate) fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        input_error!("{}: config.json: {what}", self.path.display())
    }
}

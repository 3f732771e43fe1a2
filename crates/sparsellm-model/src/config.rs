//! Typed access to `config.json`.

use serde_json::Value;
use sparsellm_base::{Result, input_error};
use sparsellm_checkpoint::Checkpoint;
use sparsellm_tensor::Activation;
use std::path::Path;

/// Typed access to `config.json`, with errors that name the key.
pub struct Config<'a> {
    json: &'a Value,
    path: &'a Path,
}

impl<'a> Config<'a> {
    /// The configuration of a checkpoint.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Config { json: &checkpoint.config, path: &checkpoint.path }
    }

    /// A configuration that is not in a checkpoint.
    #[cfg(test)]
    pub(crate) fn from_json(json: &'a Value, path: &'a Path) -> Self {
        Config { json, path }
    }

    /// The whole of it.
    pub(crate) fn json(&self) -> &'a Value {
        self.json
    }

    /// The value of a key that is present and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    /// A size: a whole number from 1 to 2³¹.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        match self.optional_size(key)? {
            Some(size) => Ok(size),
            None => input_error!("{}: config.json has no \"{key}\"", self.path.display()),
        }
    }

    /// A size, where there is one.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=0x8000_0000) => Ok(Some(size as usize)),
            _ => input_error!(
                "{}: config.json: \"{key}\" is {value}; a positive whole number was expected",
                self.path.display()
            ),
        }
    }

    /// A truth value.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(value) => input_error!(
                "{}: config.json: \"{key}\" is {value}; true or false was expected",
                self.path.display()
            ),
        }
    }

    /// A number of at least 0.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64().filter(|v| *v >= 0.0) {
            Some(number) => Ok(number),
            None => input_error!(
                "{}: config.json: \"{key}\" is {value}; a number of at least 0 was expected",
                self.path.display()
            ),
        }
    }

    /// A number above 0 that may be null, which means none; `default` where the key
    /// is absent.
    pub(crate) fn optional_positive(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.json.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
                Some(number) => Ok(Some(number)),
                None => self.fail(format!("\"{key}\" is {value}; a positive number was expected")),
            },
        }
    }

    /// The activation under the first of these keys that is there.
    pub(crate) fn activation(&self, keys: &[&str], default: &str) -> Result<Activation> {
        let found = keys.iter().find_map(|key| Some((*key, self.get(key)?.as_str()?)));
        let (key, name) = found.unwrap_or((keys.first().copied().unwrap_or_default(), default));
        match Activation::from_name(name) {
            Some(activation) => Ok(activation),
            None => self.fail(format!(
                "{key} {name} is not supported (relu, silu, gelu and its tanh form are)"
            )),
        }
    }

    /// An error that names the file.
    pub(crate) fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        input_error!("{}: config.json: {what}", self.path.display())
    }
}

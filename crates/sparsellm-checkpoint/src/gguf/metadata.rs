//! Typed look-ups in a GGUF header: a missing key gives `None`, and a value of the wrong type
//! an error.

use std::collections::HashMap;

use memmap2::Mmap;

use super::reader::{self, Parsed, TensorInfo, Value};
use sparsellm_base::{Error, Result, input_error};

/// A mapped GGUF file and its metadata.
pub(super) struct Metadata {
    pub file: String,
    pub map: Mmap,
    values: HashMap<String, Value>,
}

impl Metadata {
    /// Parses the metadata and the tensor descriptions of the mapped `file`.
    pub fn parse(file: String, map: Mmap) -> Result<(Metadata, Vec<TensorInfo>)> {
        let Parsed { values, tensors } = reader::parse(&file, &map)?;
        Ok((Metadata { file, map, values }, tensors))
    }

    /// The keys of the architecture that llama.cpp calls `architecture`.
    pub fn keys(&self, architecture: &'static str) -> Keys<'_> {
        Keys { metadata: self, architecture }
    }

    fn wrong<T>(&self, key: &str, want: &str) -> Result<T> {
        input_error!("{}: metadata key `{key}` is not {want}", self.file)
    }

    /// Unwraps the value of `key`, or returns an error that names the key.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::Input(format!("{}: metadata key `{key}` is missing", self.file)))
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => {
                reader::text(&self.file, &self.map, range, &format!("`{key}`")).map(Some)
            }
            Some(_) => self.wrong(key, "text"),
        }
    }

    /// A non-negative integer.
    pub fn number(&self, key: &str) -> Result<Option<usize>> {
        let number = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(n)) => usize::try_from(*n).ok(),
            Some(Value::Signed(n)) => usize::try_from(*n).ok(),
            Some(_) => None,
        };
        match number {
            Some(n) => Ok(Some(n)),
            None => self.wrong(key, "one whole number, zero or more"),
        }
    }

    /// A finite number. An `f32` is converted through its shortest decimal, so that 1e-5
    /// reads as 1e-5 and not as 9.999999747e-6.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        let number = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Float32(x)) => x.to_string().parse().ok(),
            Some(Value::Float64(x)) => Some(*x),
            Some(Value::Unsigned(n)) => Some(*n as f64),
            Some(Value::Signed(n)) => Some(*n as f64),
            Some(_) => None,
        };
        match number.filter(|x: &f64| x.is_finite()) {
            Some(x) => Ok(Some(x)),
            None => self.wrong(key, "a finite number"),
        }
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => self.wrong(key, "true or false"),
        }
    }

    /// An array of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: 8, count, bytes }) => {
                reader::texts(&self.file, &self.map, bytes, *count, key).map(Some)
            }
            Some(_) => self.wrong(key, "a list of texts"),
        }
    }

    /// An array of `f32`.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let words = self.words(key, &[6], "a list of 32-bit floats")?;
        Ok(words.map(|words| words.iter().map(|word| f32::from_le_bytes(*word)).collect()))
    }

    /// An array of 32-bit integers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        let words = self.words(key, &[4, 5], "a list of 32-bit integers")?;
        Ok(words.map(|words| words.iter().map(|word| i32::from_le_bytes(*word)).collect()))
    }

    fn words(&self, key: &str, kinds: &[u32], want: &str) -> Result<Option<&[[u8; 4]]>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind, bytes, .. }) if kinds.contains(kind) => {
                match self.map.get(bytes.clone()) {
                    Some(bytes) => Ok(Some(bytes.as_chunks().0)),
                    None => self.wrong(key, want),
                }
            }
            Some(_) => self.wrong(key, want),
        }
    }
}

/// The metadata keys of an architecture, without its name before them.
#[derive(Clone, Copy)]
pub(super) struct Keys<'m> {
    metadata: &'m Metadata,
    architecture: &'static str,
}

impl<'m> Keys<'m> {
    /// The file, for error messages.
    pub fn file(&self) -> &'m str {
        &self.metadata.file
    }

    /// The key as the file has it.
    pub fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Unwraps the value of `key`, or returns an error that names the key.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        self.metadata.required(&self.full(key), value)
    }

    /// As [`Metadata::text`].
    pub fn text(&self, key: &str) -> Result<Option<&'m str>> {
        self.metadata.text(&self.full(key))
    }

    /// As [`Metadata::number`].
    pub fn number(&self, key: &str) -> Result<Option<usize>> {
        self.metadata.number(&self.full(key))
    }

    /// As [`Metadata::float`].
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.full(key))
    }

    /// As [`Metadata::flag`].
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.flag(&self.full(key))
    }
}

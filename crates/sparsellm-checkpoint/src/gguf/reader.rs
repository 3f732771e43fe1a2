//! The header of a GGUF file: metadata and tensor descriptions.
//!
//! The file is untrusted. Every count and length is checked against the bytes
//! that remain before anything is allocated, and strings and arrays stay in
//! the file as byte ranges until they are asked for.

use std::collections::HashMap;
use std::ops::Range;

use super::dequantize::Kind;
use sparsellm_base::{Error, Result, input_error};

/// More metadata keys or tensors than any model has.
const MAX_ENTRIES: u64 = 1 << 17;
/// Longer than any key or tensor name; the format's own limit.
const MAX_NAME: usize = 65_535;
/// The maximum nesting depth of arrays.
const MAX_DEPTH: u32 = 4;

/// A metadata value; strings and arrays are kept as byte ranges of the file.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Bool(bool),
    Text(Range<usize>),
    Array { kind: u32, count: usize, bytes: Range<usize> },
}

/// A tensor as described by the header; its data were checked to lie in the file.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub name: String,
    /// Row-major shape (GGUF's own order reversed).
    pub shape: Vec<usize>,
    pub kind: Kind,
    /// The byte range of its blocks in the file.
    pub bytes: Range<usize>,
}

/// The contents of the header, which precedes the data.
pub(super) struct Parsed {
    pub values: HashMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
}

/// Parses the header in `bytes`; `file` names it in errors.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Parsed> {
    let mut cursor = Cursor { file, bytes, at: 0 };
    if bytes.get(..4) != Some(b"GGUF") {
        return input_error!("{file}: not a GGUF file (it does not begin with `GGUF`)");
    }
    cursor.at = 4;
    let version = cursor.u32("the version")?;
    if !(2..=3).contains(&version) {
        let why = if version.swap_bytes() <= 3 { " (a big-endian file)" } else { "" };
        return input_error!(
            "{file}: GGUF version {version}{why} is not read; versions 2 and 3 are"
        );
    }
    let tensor_count = cursor.entries("tensors", 24)?;
    let value_count = cursor.entries("metadata keys", 13)?;

    let mut values = HashMap::with_capacity(value_count.min(1024));
    for number in 0..value_count {
        let key = cursor.name(&format!("metadata key {number}"))?.to_owned();
        let kind = cursor.u32(&key)?;
        let value = cursor.value(kind, &key, 0)?;
        if values.contains_key(&key) {
            return input_error!("{file}: metadata key `{key}` appears twice");
        }
        values.insert(key, value);
    }

    let alignment = match values.get("general.alignment") {
        None => 32,
        Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n,
        Some(other) => return input_error!("{file}: general.alignment {other:?} is no alignment"),
    };
    let mut tensors = Vec::with_capacity(tensor_count.min(1024));
    for number in 0..tensor_count {
        tensors.push(cursor.tensor(number, alignment)?);
    }
    let start = cursor.at.next_multiple_of(alignment as usize);
    for tensor in &mut tensors {
        let inside = |n: usize| start.checked_add(n).filter(|end| *end <= bytes.len());
        match (inside(tensor.bytes.start), inside(tensor.bytes.end)) {
            (Some(from), Some(to)) => tensor.bytes = from..to,
            _ => {
                return input_error!(
                    "{file}: tensor `{}` ends past the end of the file ({} bytes): truncated?",
                    tensor.name,
                    bytes.len()
                );
            }
        }
    }
    no_overlap(file, &tensors)?;
    Ok(Parsed { values, tensors })
}

fn no_overlap(file: &str, tensors: &[TensorInfo]) -> Result<()> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.bytes.start);
    for pair in order.windows(2) {
        if let [a, b] = pair
            && b.bytes.start < a.bytes.end
        {
            return input_error!("{file}: tensors `{}` and `{}` overlap", a.name, b.name);
        }
    }
    Ok(())
}

/// A position in the file for bounds-checked reads.
pub(super) struct Cursor<'a> {
    pub file: &'a str,
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(slice) => {
                self.at += slice.len();
                Ok(slice)
            }
            None => input_error!(
                "{}: {what}, at byte {}, needs {length} bytes and {} remain: truncated?",
                self.file,
                self.at,
                self.remaining()
            ),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Reads a count of entries, and checks that this many of at least `smallest` bytes can
    /// follow.
    fn entries(&mut self, what: &str, smallest: usize) -> Result<usize> {
        let count = self.u64(what)?;
        if count > MAX_ENTRIES || count > (self.remaining() / smallest) as u64 {
            return input_error!("{}: {count} {what} cannot be right", self.file);
        }
        Ok(count as usize)
    }

    /// Reads a length-prefixed string, and returns its byte range.
    fn string(&mut self, what: &str) -> Result<Range<usize>> {
        let length = self.u64(what)?;
        let slice = self.take(length, what)?;
        Ok(self.at - slice.len()..self.at)
    }

    fn name(&mut self, what: &str) -> Result<&'a str> {
        let range = self.string(what)?;
        if range.is_empty() || range.len() > MAX_NAME {
            return input_error!("{}: {what} has a name of {} bytes", self.file, range.len());
        }
        text(self.file, self.bytes, &range, what)
    }

    fn value(&mut self, kind: u32, key: &str, depth: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array(key)?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Unsigned(self.u32(key)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float32(f32::from_le_bytes(self.array(key)?)),
            7 => match self.array(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [n] => {
                    return input_error!("{}: `{key}` is neither true nor false: {n}", self.file);
                }
            },
            8 => Value::Text(self.string(key)?),
            9 => self.skip_array(key, depth)?,
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float64(f64::from_le_bytes(self.array(key)?)),
            _ => return input_error!("{}: `{key}` has the unknown value type {kind}", self.file),
        })
    }

    /// Skips an array, checking that all of it is present.
    fn skip_array(&mut self, key: &str, depth: u32) -> Result<Value> {
        if depth >= MAX_DEPTH {
            return input_error!("{}: `{key}` nests arrays deeper than {MAX_DEPTH}", self.file);
        }
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let Some(size) = size_of_value(kind) else {
            return input_error!("{}: `{key}` holds values of the unknown type {kind}", self.file);
        };
        if count > (self.remaining() / size) as u64 {
            return input_error!(
                "{}: `{key}` announces {count} values and {} bytes remain: truncated?",
                self.file,
                self.remaining()
            );
        }
        let start = self.at;
        match kind {
            8 => (0..count).try_for_each(|_| self.string(key).map(drop))?,
            9 => (0..count).try_for_each(|_| self.skip_array(key, depth + 1).map(drop))?,
            _ => self.take(count * size as u64, key).map(drop)?,
        }
        Ok(Value::Array { kind, count: count as usize, bytes: start..self.at })
    }

    /// Reads a tensor description; its byte range is still relative to the data section.
    fn tensor(&mut self, number: usize, alignment: u64) -> Result<TensorInfo> {
        let file = self.file;
        let name = self.name(&format!("tensor {number}"))?.to_owned();
        let rank = self.u32(&name)?;
        if !(1..=4).contains(&rank) {
            return input_error!(
                "{file}: tensor `{name}` has {rank} dimensions; 1 to 4 are possible"
            );
        }
        let mut shape = Vec::with_capacity(rank as usize);
        let mut elements = Some(1usize);
        for _ in 0..rank {
            let dimension = usize::try_from(self.u64(&name)?).ok().filter(|n| *n > 0);
            elements = elements.zip(dimension).and_then(|(a, b)| a.checked_mul(b));
            shape.push(dimension.unwrap_or(0));
        }
        shape.reverse();
        let kind = Kind::from_id(self.u32(&name)?).map_err(|kind| {
            Error::Input(format!(
                "{file}: tensor `{name}` is stored as {kind}, which is not read; F32, F16, BF16, \
                 Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, the K-quants, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0 and \
                 MXFP4 are. Use a file of one of these, or the model's Hugging Face checkpoint."
            ))
        })?;
        let offset = self.u64(&name)?;
        if !offset.is_multiple_of(alignment) {
            return input_error!("{file}: tensor `{name}` is not aligned to {alignment} bytes");
        }
        let row = shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(kind.block()) {
            return input_error!("{file}: rows of {row} in `{name}` are no whole {kind} blocks");
        }
        let length = elements.and_then(|n| (n / kind.block()).checked_mul(kind.bytes()));
        let start = usize::try_from(offset).ok();
        match start.zip(length).and_then(|(a, n)| Some(a..a.checked_add(n)?)) {
            Some(bytes) => Ok(TensorInfo { name, shape, kind, bytes }),
            None => input_error!("{file}: tensor `{name}` has an impossible shape or offset"),
        }
    }
}

/// The smallest number of bytes that a value of `kind` can take.
pub(super) fn size_of_value(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        8 | 10..=12 => Some(8),
        9 => Some(12),
        _ => None,
    }
}

/// Decodes the text in `range` of the file.
pub(super) fn text<'a>(
    file: &str,
    bytes: &'a [u8],
    range: &Range<usize>,
    what: &str,
) -> Result<&'a str> {
    match bytes.get(range.clone()).map(std::str::from_utf8) {
        Some(Ok(text)) => Ok(text),
        _ => input_error!("{file}: {what}, at byte {}, is not UTF-8 text", range.start),
    }
}

/// Decodes an array of strings whose data occupy `range` of the file.
pub(super) fn texts<'a>(
    file: &'a str,
    bytes: &'a [u8],
    range: &Range<usize>,
    count: usize,
    key: &str,
) -> Result<Vec<&'a str>> {
    let mut cursor = Cursor { file, bytes, at: range.start };
    let mut out = Vec::with_capacity(count.min(range.len() / 8));
    for number in 0..count {
        let item = cursor.string(key)?;
        out.push(text(file, bytes, &item, &format_args!("entry {number} of `{key}`").to_string())?);
    }
    Ok(out)
}

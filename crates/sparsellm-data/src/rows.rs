//! Files of rows: JSON (an array, or one object per line), parquet, or lines of text. Gzip
//! and bzip2 are decompressed on the fly. Text is read as Python's text mode reads it, and JSON
//! as Python's `json` module does.

use crate::{parquet, text_mode::TextMode};
use serde::de::DeserializeOwned;
use serde_json::{Value, error::Category};
use sparsellm_base::{Error, Result};
use sparsellm_checkpoint::{NotNumber, parse_json};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// A longer row, in bytes, is not text: the file is damaged or hostile.
const LONGEST_ROW: u64 = 256 << 20;

/// A compressed file that expands to more than this many times its own size, and to more than
/// [`SMALL`] bytes, is treated as a decompression bomb.
const EXPANSION: u64 = 32;
const SMALL: u64 = 8 << 20;

/// A row of a file.
pub struct Row<T> {
    /// The row's number in the file, from 1; in a file of lines, the line number.
    pub number: usize,
    /// The contents of the row.
    pub value: T,
}

/// A file's rows in order. They are read lazily, so each may fail.
pub type Rows<T> = Box<dyn Iterator<Item = Result<Row<T>>>>;

/// Opens a file of rows: `.parquet` by its extension, or JSON otherwise.
///
/// # Errors
/// Returns an error if the file cannot be opened. The iterator yields an error that names
/// file and row if a row is damaged or lacks a field of `T`.
pub fn rows<T: DeserializeOwned + 'static>(path: &Path) -> Result<Rows<T>> {
    if path.extension().is_some_and(|e| e == "parquet") {
        let mut left = most(path)?;
        let values = parquet::values(path, left)?.map(move |value| {
            let value = value?;
            left = left.checked_sub(size(&value)).ok_or_else(bomb)?;
            Ok(value)
        });
        return numbered(path, values);
    }
    let mut reader = open(path)?;
    let start = reader.fill_buf().map_err(|e| unreadable(path, 1, &e))?;
    if start.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        return json_array(path, reader);
    }
    let path = path.to_path_buf();
    let rows = lines_of(&path, reader)
        .filter(|row| !row.as_ref().is_ok_and(|row| row.value.trim().is_empty()));
    Ok(Box::new(rows.map(move |row| {
        let Row { number, value } = row?;
        let value = parse_json(value.as_bytes(), NotNumber::Null)
            .map_err(|e| bad_json(&path, number, &e))?;
        Ok(Row { number, value })
    })))
}

/// Opens a file of lines. Each includes its line break, if it has one.
///
/// # Errors
/// Returns an error if the file cannot be opened; the iterator yields one if a line is
/// damaged.
pub fn lines(path: &Path) -> Result<Rows<String>> {
    Ok(Box::new(lines_of(path, open(path)?)))
}

/// Creates an error that names file and row.
pub fn at(path: &Path, number: usize, what: impl std::fmt::Display) -> Error {
    Error::Input(format!("{}: row {number}: {what}", path.display()))
}

/// Opens a file of text for reading, decompressed.
fn open(path: &Path) -> Result<impl BufRead + use<>> {
    let text = TextMode::new(open_bytes(path)?).map_err(|e| unreadable(path, 1, &e))?;
    Ok(BufReader::new(text))
}

/// Opens a file for reading, decompressed.
fn open_bytes(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let limited = |inner: Box<dyn Read>| -> Result<Box<dyn BufRead>> {
        Ok(Box::new(BufReader::new(Limited { inner, left: most(path)? })))
    };
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => limited(Box::new(flate2::read::MultiGzDecoder::new(file))),
        Some("bz2") => limited(Box::new(bzip2::read::MultiBzDecoder::new(file))),
        _ => Ok(Box::new(BufReader::new(file))),
    }
}

/// The maximum size, in bytes, to which a compressed file may expand.
fn most(path: &Path) -> Result<u64> {
    let file = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    Ok(SMALL.max(file.len().saturating_mul(EXPANSION)))
}

fn bomb() -> String {
    format!(
        "it expands to more than {EXPANSION} times its size; if that is right, give it uncompressed"
    )
}

/// The approximate size of a row in bytes.
fn size(value: &Value) -> u64 {
    let of = |values: &mut dyn Iterator<Item = &Value>| values.map(size).sum::<u64>();
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(values) => of(&mut values.iter()),
        Value::Object(map) => of(&mut map.values()),
        _ => 8,
    }
}

/// A decompressor that fails beyond a given number of bytes.
struct Limited {
    inner: Box<dyn Read>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(to)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| std::io::Error::other(bomb()))?;
        Ok(n)
    }
}

fn lines_of<R: BufRead>(
    path: &Path,
    mut reader: R,
) -> impl Iterator<Item = Result<Row<String>>> + use<R> {
    let path = path.to_path_buf();
    let mut number = 0;
    std::iter::from_fn(move || {
        number += 1;
        let mut line = Vec::new();
        match reader.by_ref().take(LONGEST_ROW + 1).read_until(b'\n', &mut line) {
            Err(e) => return Some(Err(unreadable(&path, number, &e))),
            Ok(0) => return None,
            Ok(n) if n as u64 > LONGEST_ROW => {
                return Some(Err(at(&path, number, "longer than 256 MiB: this is no row of text")));
            }
            Ok(_) => {}
        }
        let line = String::from_utf8(line).map_err(|e| {
            let byte = e.utf8_error().valid_up_to();
            at(&path, number, format!("not UTF-8 text (byte {byte} of the row)"))
        });
        Some(line.map(|value| Row { number, value }))
    })
}

/// The error that stopped the reading: of the disk, or data that cannot be decompressed.
fn unreadable(path: &Path, number: usize, e: &std::io::Error) -> Error {
    match path.extension().and_then(|e| e.to_str()) {
        Some(kind @ ("gz" | "bz2")) if e.kind() != std::io::ErrorKind::Unsupported => {
            let what = format!("damaged or truncated .{kind} data ({e}); download the file again");
            at(path, number, what)
        }
        _ => at(path, number, e),
    }
}

fn bad_json(path: &Path, number: usize, e: &serde_json::Error) -> Error {
    let what = match e.classify() {
        Category::Data => "not a row of this kind",
        // Perhaps an object over several lines.
        Category::Eof => {
            "not valid JSON by itself (each line is to hold an object, or the file an array of them)"
        }
        _ => "not valid JSON",
    };
    at(path, number, format!("{what}: {e}"))
}

fn json_array<T: DeserializeOwned + 'static>(
    path: &Path,
    mut reader: impl BufRead,
) -> Result<Rows<T>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|e| unreadable(path, 1, &e))?;
    let values: Vec<Value> = parse_json(&bytes, NotNumber::Null).map_err(|e| {
        let (line, what) = (e.line(), format!("not a valid JSON array: {e}"));
        Error::Input(format!("{}: line {line}: {what}", path.display()))
    })?;
    numbered(path, values.into_iter().map(Ok))
}

/// Numbers consecutive values as rows, converted to `T`.
fn numbered<T: DeserializeOwned + 'static>(
    path: &Path,
    values: impl Iterator<Item = std::result::Result<Value, String>> + 'static,
) -> Result<Rows<T>> {
    let path = path.to_path_buf();
    Ok(Box::new(values.enumerate().map(move |(i, value)| {
        let number = i + 1;
        let value = value.map_err(|e| at(&path, number, e))?;
        let value = serde_json::from_value(value).map_err(|e| bad_json(&path, number, &e))?;
        Ok(Row { number, value })
    })))
}

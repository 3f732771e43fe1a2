//! Rows of numbers that are needed again later, kept in memory or in a temporary file, as f32 or as
//! bf16: SparseLLM's z and s, and the moments and the dense model's hidden states of tuning.

use sparsellm_base::{Error, Result};
use sparsellm_tensor::{FloatType, decode, encode};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The number type in which rows are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateType {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded to bf16, which takes half the memory.
    Bf16,
}

impl StateType {
    fn dtype(self) -> FloatType {
        match self {
            StateType::F32 => FloatType::F32,
            StateType::Bf16 => FloatType::Bf16,
        }
    }

    /// The number of bytes per element.
    pub fn size(self) -> usize {
        self.dtype().size()
    }
}

impl FromStr for StateType {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" => Ok(StateType::F32),
            "bf16" => Ok(StateType::Bf16),
            _ => Err(format!("unknown state type {text:?}; choose f32 or bf16")),
        }
    }
}

/// How rows are kept that are needed again later; by default in memory, as f32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep<'a> {
    /// Their number type.
    pub state: StateType,
    /// The folder of temporary files for them; `None` keeps them in memory.
    pub spill: Option<&'a Path>,
}

/// Where the rows are kept.
enum Place {
    Values(Vec<f32>),
    Bytes(Vec<u8>),
    /// A file without a name, of which nothing is left however the process ends, and its folder.
    File(File, PathBuf),
}

/// Rows of so many numbers.
pub struct Rows {
    cols: usize,
    dtype: FloatType,
    place: Place,
    /// The rows in use as f32, unless they are used in place.
    values: Vec<f32>,
    /// The same rows as they are stored in the file.
    bytes: Vec<u8>,
}

impl Rows {
    /// Makes room for `count` rows, all of them zero. A temporary file is read and written rather
    /// than mapped, so that a full disk is an error and not a signal, and its pages do not count
    /// towards the process's memory.
    ///
    /// # Errors
    /// If the temporary file cannot be created with that size.
    pub fn new(count: usize, cols: usize, keep: Keep) -> Result<Rows> {
        let dtype = keep.state.dtype();
        let size = count * cols * dtype.size();
        let place = match keep.spill {
            Some(folder) => {
                let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
                file.set_len(size as u64).map_err(|e| Error::io(folder, e))?;
                Place::File(file, folder.into())
            }
            None if dtype == FloatType::F32 => Place::Values(vec![0.0; count * cols]),
            None => Place::Bytes(vec![0; size]),
        };
        Ok(Rows { cols, dtype, place, values: Vec::new(), bytes: Vec::new() })
    }

    /// How many numbers a row has.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Calls `body` to change some rows.
    ///
    /// # Errors
    /// If the temporary file cannot be read or written.
    pub fn with<R>(&mut self, rows: Range<usize>, body: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        if let Place::Values(values) = &mut self.place {
            return Ok(body(&mut values[elements(&rows, self.cols)]));
        }
        self.read(rows.clone())?;
        let result = body(&mut self.values);
        self.store(rows)?;
        Ok(result)
    }

    /// Some rows.
    ///
    /// # Errors
    /// If the temporary file cannot be read.
    pub fn read(&mut self, rows: Range<usize>) -> Result<&[f32]> {
        let range = elements(&rows, self.cols);
        let at = elements(&range, self.dtype.size());
        let bytes = match &mut self.place {
            Place::Values(values) => return Ok(&values[range]),
            Place::Bytes(bytes) => &bytes[at],
            Place::File(file, folder) => {
                self.bytes.resize(at.len(), 0);
                file.seek(SeekFrom::Start(at.start as u64))
                    .and_then(|_| file.read_exact(&mut self.bytes))
                    .map_err(|e| Error::io(folder, e))?;
                &self.bytes
            }
        };
        self.values.resize(range.len(), 0.0);
        decode(bytes, self.dtype, &mut self.values);
        Ok(&self.values)
    }

    /// Keeps `values` as some rows.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub fn write(&mut self, rows: Range<usize>, values: &[f32]) -> Result<()> {
        if let Place::Values(own) = &mut self.place {
            own[elements(&rows, self.cols)].copy_from_slice(values);
            return Ok(());
        }
        self.values.clear();
        self.values.extend_from_slice(values);
        self.store(rows)
    }

    /// Keeps the rows in use, unless they are in place.
    fn store(&mut self, rows: Range<usize>) -> Result<()> {
        let at = elements(&rows, self.cols * self.dtype.size());
        match &mut self.place {
            Place::Values(_) => {}
            Place::Bytes(bytes) => encode(&self.values, self.dtype, &mut bytes[at]),
            Place::File(file, folder) => {
                self.bytes.resize(at.len(), 0);
                encode(&self.values, self.dtype, &mut self.bytes);
                file.seek(SeekFrom::Start(at.start as u64))
                    .and_then(|_| file.write_all(&self.bytes))
                    .map_err(|e| Error::io(folder, e))?;
            }
        }
        Ok(())
    }
}

/// The elements of some rows, each of which has so many.
fn elements(rows: &Range<usize>, each: usize) -> Range<usize> {
    rows.start * each..rows.end * each
}

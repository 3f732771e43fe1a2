//! Keeps z (and s) between epochs. They are all that the method stores per token, in memory or in
//! a temporary file, as f32 or as bf16.

use sparsellm_base::{Error, Result};
use sparsellm_tensor::{FloatType, decode, encode};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The number type in which z and s are kept.
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

/// How tokens are streamed, and where z and s are kept between epochs.
#[derive(Clone, Debug)]
pub struct Streaming {
    /// The number of tokens per chunk.
    pub chunk: usize,
    /// The folder of a temporary file for z and s; `None` keeps them in memory. The file is read and
    /// written rather than mapped, so that a full disk is an error and not a signal, and its pages
    /// do not count towards the process's memory.
    pub spill: Option<PathBuf>,
}

impl Streaming {
    /// Streams chunks of `chunk` tokens, and keeps z and s in memory.
    pub fn in_memory(chunk: usize) -> Self {
        Streaming { chunk, spill: None }
    }

    /// Whether rows of the type `state` can be used in place, without a copy.
    pub(super) fn in_place(&self, state: StateType) -> bool {
        self.spill.is_none() && state == StateType::F32
    }
}

/// Where the rows are kept.
enum Place {
    Values(Vec<f32>),
    Bytes(Vec<u8>),
    /// A file without a name, of which nothing is left however the process ends, and its folder.
    File(File, PathBuf),
}

/// One row of `cols` elements per token: its z, and then its s.
pub struct State {
    cols: usize,
    dtype: FloatType,
    place: Place,
    /// The rows in use as f32, unless they are used in place.
    rows: Vec<f32>,
    /// The same rows as they are stored in the file.
    bytes: Vec<u8>,
}

impl State {
    /// Makes room for `tokens` rows.
    ///
    /// # Errors
    /// If the temporary file cannot be created with that size.
    pub fn new(
        tokens: usize,
        cols: usize,
        state: StateType,
        spill: Option<&Path>,
    ) -> Result<State> {
        let dtype = state.dtype();
        let size = tokens * cols * dtype.size();
        let place = match spill {
            Some(folder) => {
                let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
                file.set_len(size as u64).map_err(|e| Error::io(folder, e))?;
                Place::File(file, folder.into())
            }
            None if dtype == FloatType::F32 => Place::Values(vec![0.0; tokens * cols]),
            None => Place::Bytes(vec![0; size]),
        };
        Ok(State { cols, dtype, place, rows: Vec::new(), bytes: Vec::new() })
    }

    /// Calls `body` to change the rows of some tokens.
    ///
    /// # Errors
    /// If the temporary file cannot be read or written.
    pub fn with<R>(
        &mut self,
        tokens: Range<usize>,
        body: impl FnOnce(&mut [f32]) -> R,
    ) -> Result<R> {
        let (start, len) = (tokens.start * self.cols, tokens.len() * self.cols);
        let at = start * self.dtype.size()..(start + len) * self.dtype.size();
        let bytes = match &mut self.place {
            Place::Values(values) => return Ok(body(&mut values[start..start + len])),
            Place::Bytes(bytes) => &mut bytes[at],
            Place::File(file, folder) => {
                self.bytes.resize(at.len(), 0);
                file.seek(SeekFrom::Start(at.start as u64))
                    .and_then(|_| file.read_exact(&mut self.bytes))
                    .map_err(|e| Error::io(folder, e))?;
                &mut self.bytes[..]
            }
        };
        self.rows.resize(len, 0.0);
        decode(bytes, self.dtype, &mut self.rows);
        let result = body(&mut self.rows);
        encode(&self.rows, self.dtype, bytes);
        if let Place::File(file, folder) = &mut self.place {
            file.seek_relative(-(self.bytes.len() as i64))
                .and_then(|()| file.write_all(&self.bytes))
                .map_err(|e| Error::io(folder, e))?;
        }
        Ok(result)
    }
}

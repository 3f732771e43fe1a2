//! z (and s) between epochs: all that the method keeps per token. In memory or
//! in a temporary file, as f32 or as bf16.

use sparsellm_base::{Error, Result};
use sparsellm_tensor::{FloatType, decode, encode};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The number type z and s are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateType {
    /// As computed.
    #[default]
    F32,
    /// Rounded to 8 bits of mantissa: half the memory.
    Bf16,
}

impl StateType {
    fn dtype(self) -> FloatType {
        match self {
            StateType::F32 => FloatType::F32,
            StateType::Bf16 => FloatType::Bf16,
        }
    }

    /// Bytes per element.
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

/// How the tokens are streamed, and where z and s are kept meanwhile.
#[derive(Clone, Debug)]
pub struct Streaming {
    /// Tokens per chunk.
    pub chunk: usize,
    /// The folder of the temporary file that holds z and s; memory where `None`.
    /// (Read and written, not mapped: a full disk is an error then, not a
    /// signal, and pages in memory count towards no one's limit.)
    pub spill: Option<PathBuf>,
}

impl Streaming {
    /// Chunks of `chunk` tokens, z and s in memory.
    pub fn in_memory(chunk: usize) -> Self {
        Streaming { chunk, spill: None }
    }

    /// Whether rows kept as `state` can be used where they are kept.
    pub(super) fn in_place(&self, state: StateType) -> bool {
        self.spill.is_none() && state == StateType::F32
    }
}

enum Place {
    Values(Vec<f32>),
    Bytes(Vec<u8>),
    /// Without a name: nothing is left of it, however the process ends.
    File(File, PathBuf),
}

/// Rows of `cols` elements, one per token: its z, then its s.
pub struct State {
    cols: usize,
    dtype: FloatType,
    place: Place,
    /// The rows in use, where they are not kept as f32 in memory.
    rows: Vec<f32>,
    /// The same as they lie in the file.
    bytes: Vec<u8>,
}

impl State {
    /// Room for `tokens` rows.
    ///
    /// # Errors
    /// Where there can be no temporary file, or none of that size.
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

    /// Lets `body` change some tokens' rows.
    ///
    /// # Errors
    /// Where the temporary file cannot be read or written.
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

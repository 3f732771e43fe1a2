//! A pre-trained model on disk: its configuration and its named tensors.

use crate::{
    Slot, TensorInfo, TensorSource,
    folder::{Folder, remedy},
    gguf::Gguf,
    json::{hex, read_json},
    quantization::refuse_quantized,
};
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sparsellm_base::{Error, Result, input_error};
use sparsellm_tensor::{Matrix, PIECE, decode, encode};
use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What quantized weights are called in place of `weight`.
const QUANTIZED: [&str; 3] = ["qweight", "weight_packed", "blocks"];

/// A pre-trained model on disk. Its weights stay in memory-mapped files until they are
/// requested, and are read as f32 whatever their format.
pub struct Checkpoint {
    /// The folder, or the `.gguf` file.
    pub path: PathBuf,
    /// The contents of `config.json`, or its equivalent from a GGUF's metadata.
    pub config: Value,
    source: Box<dyn TensorSource>,
    digest: OnceLock<String>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder or a `.gguf` file.
    ///
    /// # Errors
    /// Returns an error if `path` is neither, its weights are quantized already, or a file in
    /// it is damaged.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let (config, source): (Value, Box<dyn TensorSource>) = if meta.is_dir() {
            let config = path.join("config.json");
            if !config.is_file() {
                return input_error!(
                    "{}: not a model folder: it has no config.json; {}",
                    path.display(),
                    remedy(path)
                );
            }
            let config = read_json(&config)?;
            refuse_quantized(&config, path)?;
            (config, Box::new(Folder::open(path)?))
        } else if path.extension().is_some_and(|e| e == "gguf") {
            let gguf = Gguf::open(path)?;
            (gguf.config()?, Box::new(gguf))
        } else {
            return input_error!(
                "{}: not a model: expected a Hugging Face folder (with config.json) or a .gguf file",
                path.display()
            );
        };
        Ok(Checkpoint { path: path.into(), config, source, digest: OnceLock::new() })
    }

    /// The format behind this checkpoint.
    pub fn source(&self) -> &dyn TensorSource {
        &*self.source
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        self.source.tensors()
    }

    /// The tensor's description.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has no tensor of that name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors().get(name).ok_or_else(|| {
            let stem = name.strip_suffix("weight").unwrap_or(name);
            let mut quantized = QUANTIZED.iter().map(|part| format!("{stem}{part}"));
            let why = match quantized.find(|name| self.tensors().contains_key(name)) {
                Some(part) => format!(
                    "the checkpoint is quantized ({part} is there); use the original checkpoint, which is not quantized"
                ),
                None => "the checkpoint is incomplete or config.json does not describe it".into(),
            };
            Error::Input(format!("{}: tensor {name} is missing; {why}", self.path.display()))
        })
    }

    /// Returns an error unless the tensor `name` exists, has the shape that `config.json`
    /// implies, and is of a readable type.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        let info = self.info(name)?;
        if info.shape != shape {
            return input_error!(
                "{}: tensor {name} has shape {:?}, but config.json implies {shape:?}",
                self.path.display(),
                info.shape
            );
        }
        if info.dtype.float().is_none() {
            return input_error!(
                "{}: tensor {name} is stored as {}; only F64, F32, F16 and BF16 weights can be pruned",
                self.path.display(),
                info.dtype.name()
            );
        }
        Ok(())
    }

    /// Reads elements `range` of the tensor `name`, counted in row-major order, as f32.
    ///
    /// # Errors
    /// Returns an error if the tensor is missing, of an unreadable type, or not finite.
    pub fn read(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>> {
        let start = range.start;
        let out = self.values(name, range)?;
        // A single row of an embedding is not worth a second thread.
        let values = out.par_iter().with_min_len(PIECE);
        if let Some(i) = values.position_first(|v| !v.is_finite()) {
            return input_error!(
                "{}: tensor {name} holds {} at element {}; the checkpoint is damaged",
                self.path.display(),
                out[i],
                start + i
            );
        }
        Ok(out)
    }

    /// Reads the same, whether or not the values are finite: buffers that no weight depends
    /// on, such as a mask, may hold infinities.
    fn values(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>> {
        let info = self.info(name)?;
        if range.end > info.len() {
            return input_error!(
                "{}: tensor {name} ends before element {}",
                self.path.display(),
                range.end
            );
        }
        if info.dtype.float().is_none() {
            return input_error!(
                "{}: tensor {name} is stored as {}, which cannot be read as weights",
                self.path.display(),
                info.dtype.name()
            );
        }
        let mut out = vec![0.0; range.len()];
        self.source.read(name, range, &mut out)?;
        Ok(out)
    }

    /// Reads a two-dimensional tensor.
    ///
    /// # Errors
    /// Fails as [`read`](Self::read) does, and if the tensor is not two-dimensional.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        let info = self.info(name)?;
        let &[rows, cols] = info.shape.as_slice() else {
            return input_error!(
                "{}: tensor {name} has shape {:?}; a matrix was expected",
                self.path.display(),
                info.shape
            );
        };
        Ok(Matrix::new(rows, cols, self.read(name, 0..rows * cols)?))
    }

    /// Reads a tensor as a flat vector.
    ///
    /// # Errors
    /// Fails as [`read`](Self::read) does.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        self.read(name, 0..self.info(name)?.len())
    }

    /// Reads rows `rows` of a matrix with `cols` columns.
    ///
    /// # Errors
    /// Fails as [`read`](Self::read) does.
    pub fn rows(&self, name: &str, rows: Range<usize>, cols: usize) -> Result<Matrix> {
        let data = self.read(name, rows.start * cols..rows.end * cols)?;
        Ok(Matrix::new(rows.len(), cols, data))
    }

    /// Reads the weights `[d_out, d_in]` of a slot.
    ///
    /// # Errors
    /// Fails as [`read`](Self::read) does.
    pub fn slot(&self, slot: &Slot) -> Result<Matrix> {
        let (rows, cols) = (slot.rows.count(), slot.cols);
        let pieces = slot.pieces(self.info(&slot.tensor)?.len());
        if let [whole] = pieces.as_slice() {
            return Ok(Matrix::new(rows, cols, self.read(&slot.tensor, whole.stored.clone())?));
        }
        let mut matrix = Matrix::zeros(rows, cols);
        for piece in pieces {
            piece.scatter(&self.read(&slot.tensor, piece.stored.clone())?, &mut matrix.data);
        }
        Ok(matrix)
    }

    /// Counts the zero elements of a tensor, which need not be finite.
    ///
    /// # Errors
    /// Returns an error if the tensor is missing or its file is damaged.
    pub fn count_zeros(&self, name: &str) -> Result<usize> {
        let info = self.info(name)?;
        if info.dtype.float().is_some() {
            return Ok(self.values(name, 0..info.len())?.iter().filter(|v| **v == 0.0).count());
        }
        // In the other types, too, zero is all zero bytes.
        let bytes = self.source.bytes(name).unwrap_or_default();
        let elements = bytes.chunks_exact(info.dtype.size().max(1));
        Ok(elements.filter(|e| e.iter().all(|b| *b == 0)).count())
    }

    /// Rounds values to the type that the tensor `name` is stored in.
    ///
    /// # Errors
    /// Returns an error if there is no such tensor.
    pub fn round(&self, name: &str, values: &mut [f32]) -> Result<()> {
        if let Some(float) = self.info(name)?.dtype.float() {
            let mut bytes = vec![0; values.len() * float.size()];
            encode(values, float, &mut bytes);
            decode(&bytes, float, values);
        }
        Ok(())
    }

    /// The SHA-256 of the configuration, in hexadecimal.
    pub fn config_digest(&self) -> String {
        hex(&Sha256::digest(self.config.to_string()))
    }

    /// The SHA-256 of the weight files' bytes, in hexadecimal, which identifies the run's
    /// input. It is computed once and then cached.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn digest(&self) -> Result<String> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest.clone());
        }
        let mut sha = Sha256::new();
        for path in self.source.weight_files() {
            let copied = File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut sha));
            copied.map_err(|e| Error::io(&path, e))?;
        }
        Ok(self.digest.get_or_init(|| hex(&sha.finalize())).clone())
    }

    /// Hints to the operating system to load the tensors whose names start with `prefix` from
    /// disk in the background.
    pub fn prefetch(&self, prefix: &str) {
        self.source.prefetch(prefix);
    }

    /// Releases the memory that pages of the mapped files occupy in this process.
    pub fn release(&self) {
        self.source.release();
    }
}

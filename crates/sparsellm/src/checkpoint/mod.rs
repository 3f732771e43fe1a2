//! Reading and writing weights: one [`Checkpoint`] that yields named tensors,
//! whatever the file format, and one [`Writer`] for the result.

pub mod gguf;
pub(crate) mod pytorch;
mod run_folder;
pub(crate) mod safetensors;
mod shard;
mod writer;

pub(crate) use run_folder::folder_of;
pub use run_folder::{Existing, PARTIAL, finished, unfinished};
pub use writer::{Finished, REPORT, Writer};

pub use crate::dtype::Dtype;
use crate::dtype::{PIECE, decode, encode};
use crate::error::{Error, Result, invalid};
use crate::linalg::Matrix;
use memmap2::{Advice, Mmap, UncheckedAdvice};
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

/// A stored tensor: what it is and where its bytes lie.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Element type, and the type it is written in.
    pub dtype: Dtype,
    /// Which weight file holds it.
    file: usize,
    /// Its bytes in that file. Empty for a GGUF, whose blocks are read by name.
    bytes: Range<usize>,
    /// See [`Entry::strides`].
    strides: Option<Vec<usize>>,
}

/// A tensor in the header of a weight file. Several may lie in the same bytes.
#[derive(Clone, Debug)]
struct Entry {
    /// Its name.
    name: String,
    /// Element type.
    dtype: Dtype,
    /// Shape. Its product is at most the number of elements in the file.
    shape: Vec<usize>,
    /// From its first element's first byte to past its last element, in the file.
    bytes: Range<usize>,
    /// Distance in elements from one index to the next, per dimension, where
    /// the elements do not simply follow each other in row-major order.
    strides: Option<Vec<usize>>,
}

impl TensorInfo {
    /// Number of elements. (Shapes were checked against the file's size.)
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One memory-mapped weight file.
struct WeightFile {
    name: String,
    map: Mmap,
}

/// A pre-trained model on disk: its configuration and its named tensors.
/// Weights stay in the memory-mapped files until they are asked for.
pub struct Checkpoint {
    /// The folder, or the `.gguf` file.
    pub path: PathBuf,
    /// `config.json`, or what a GGUF's metadata says in its place.
    pub config: Value,
    tensors: BTreeMap<String, TensorInfo>,
    files: Vec<WeightFile>,
    gguf: Option<gguf::Gguf>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder or a `.gguf` file.
    ///
    /// # Errors
    /// Where `path` is neither, or a file in it is damaged.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if meta.is_dir() {
            return Self::open_folder(path);
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("gguf") => Self::open_gguf(path),
            _ => invalid!(
                "{}: not a model: expected a Hugging Face folder (with config.json) or a .gguf file",
                path.display()
            ),
        }
    }

    fn open_folder(path: &Path) -> Result<Checkpoint> {
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            return invalid!(
                "{}: not a model folder: it has no config.json; give a Hugging Face checkpoint folder",
                path.display()
            );
        }
        let config = read_json(&config_path)?;
        let (names, read_header) = if let Some(names) = safetensors::weight_files(path)? {
            (names, safetensors::read_header as fn(&Path, &[u8]) -> Result<Vec<Entry>>)
        } else if let Some(names) = pytorch::weight_files(path)? {
            (names, pytorch::read_header as _)
        } else {
            return invalid!(
                "{}: no weights: it has no {} or {} (nor their .index.json)",
                path.display(),
                safetensors::SINGLE,
                pytorch::SINGLE
            );
        };
        let (mut tensors, mut files) = (BTreeMap::new(), Vec::new());
        for name in names {
            let file_path = path.join(&name);
            let map = map_file(&file_path)?;
            for Entry { name, dtype, shape, bytes, strides } in read_header(&file_path, &map)? {
                let info = TensorInfo { shape, dtype, file: files.len(), bytes, strides };
                if tensors.insert(name.clone(), info).is_some() {
                    return invalid!(
                        "{}: tensor {name} is in two weight files; remove the stale one",
                        path.display()
                    );
                }
            }
            files.push(WeightFile { name, map });
        }
        Ok(Checkpoint { path: path.into(), config, tensors, files, gguf: None })
    }

    fn open_gguf(path: &Path) -> Result<Checkpoint> {
        let gguf = gguf::Gguf::open(path)?;
        let tensors = gguf
            .tensors()
            .map(|(name, shape)| {
                let info = TensorInfo {
                    shape: shape.to_vec(),
                    dtype: Dtype::F16,
                    file: 0,
                    bytes: 0..0,
                    strides: None,
                };
                (name.to_string(), info)
            })
            .collect();
        let config = gguf.config()?;
        Ok(Checkpoint { path: path.into(), config, tensors, files: Vec::new(), gguf: Some(gguf) })
    }

    /// The GGUF behind this checkpoint, if it is one.
    pub fn gguf(&self) -> Option<&gguf::Gguf> {
        self.gguf.as_ref()
    }

    /// All tensors by name, in order of name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The tensor's description.
    ///
    /// # Errors
    /// Where the checkpoint has no tensor of that name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| {
            Error::Invalid(format!(
                "{}: tensor {name} is missing; the checkpoint is incomplete or config.json does not describe it",
                self.path.display()
            ))
        })
    }

    /// Fails unless tensor `name` is there with the shape `config.json` implies
    /// and a type that can be read.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        let info = self.info(name)?;
        if info.shape != shape {
            return invalid!(
                "{}: tensor {name} has shape {:?}, but config.json implies {shape:?}",
                self.path.display(),
                info.shape
            );
        }
        if !info.dtype.is_readable() {
            return invalid!(
                "{}: tensor {name} is stored as {}; only F32, F16 and BF16 weights can be pruned",
                self.path.display(),
                info.dtype.name()
            );
        }
        Ok(())
    }

    /// Elements `range` of tensor `name` (counted row-major), as f32.
    ///
    /// # Errors
    /// Where it is missing, of a type that cannot be read, or not finite.
    pub fn read(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>> {
        let info = self.info(name)?;
        if range.end > info.len() {
            return invalid!(
                "{}: tensor {name} ends before element {}",
                self.path.display(),
                range.end
            );
        }
        let mut out = vec![0.0; range.len()];
        if let Some(gguf) = &self.gguf {
            gguf.read_f32(name, range.clone(), &mut out)?;
        } else {
            if !info.dtype.is_readable() {
                return invalid!(
                    "{}: tensor {name} is stored as {}, which cannot be read as weights",
                    self.path.display(),
                    info.dtype.name()
                );
            }
            decode(&self.bytes(info, range.clone()), info.dtype, &mut out);
        }
        // A row of an embedding is not worth a second thread.
        let values = out.par_iter().with_min_len(PIECE);
        if let Some(i) = values.position_first(|v| !v.is_finite()) {
            return invalid!(
                "{}: tensor {name} holds {} at element {}; the checkpoint is damaged",
                self.path.display(),
                out[i],
                range.start + i
            );
        }
        Ok(out)
    }

    /// A two-dimensional tensor.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        let info = self.info(name)?;
        let &[rows, cols] = info.shape.as_slice() else {
            return invalid!(
                "{}: tensor {name} has shape {:?}; a matrix was expected",
                self.path.display(),
                info.shape
            );
        };
        Ok(Matrix::new(rows, cols, self.read(name, 0..rows * cols)?))
    }

    /// A tensor as a flat vector.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        self.read(name, 0..self.info(name)?.len())
    }

    /// Rows `rows` of a matrix with `cols` columns.
    pub fn rows(&self, name: &str, rows: Range<usize>, cols: usize) -> Result<Matrix> {
        let data = self.read(name, rows.start * cols..rows.end * cols)?;
        Ok(Matrix::new(rows.len(), cols, data))
    }

    /// How many of a tensor's elements are zero.
    pub fn count_zeros(&self, name: &str) -> Result<usize> {
        let info = self.info(name)?;
        if info.dtype.is_readable() {
            return Ok(self.vector(name)?.iter().filter(|v| **v == 0.0).count());
        }
        // Whatever the type, zero is all zero bytes.
        let (bytes, size) = (self.bytes(info, 0..info.len()), info.dtype.size());
        Ok(bytes.chunks_exact(size).filter(|e| e.iter().all(|b| *b == 0)).count())
    }

    /// Rounds values to the type tensor `name` is stored in.
    pub fn round(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let dtype = self.info(name)?.dtype;
        if dtype != Dtype::F32 {
            let mut bytes = vec![0; values.len() * dtype.size()];
            encode(values, dtype, &mut bytes);
            decode(&bytes, dtype, values);
        }
        Ok(())
    }

    /// SHA-256 of the configuration, as hex.
    pub fn config_digest(&self) -> String {
        hex(&Sha256::digest(self.config.to_string()))
    }

    /// SHA-256 over the weight files' bytes, as hex: what this run read.
    pub fn digest(&self) -> Result<String> {
        let mut sha = Sha256::new();
        let mut add = |path: &Path| -> Result<()> {
            let copied = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut sha));
            copied.map(drop).map_err(|e| Error::io(path, e))
        };
        match &self.gguf {
            Some(_) => add(&self.path)?,
            None => self.files.iter().try_for_each(|f| add(&self.path.join(&f.name)))?,
        }
        Ok(hex(&sha.finalize()))
    }

    /// Lets the system read the tensors whose names start with `prefix` from the
    /// disk while something else is done.
    pub fn prefetch(&self, prefix: &str) {
        let these = self.tensors.range(prefix.to_string()..);
        for (_, info) in these.take_while(|(name, _)| name.starts_with(prefix)) {
            if let Some(file) = self.files.get(info.file) {
                // Advice only: where it is not taken, the tensor is read when it is used.
                let _ = file.map.advise_range(Advice::WillNeed, info.bytes.start, info.bytes.len());
            }
        }
    }

    /// Gives back the memory that the mapped files' pages take in this process;
    /// what is read again comes from the system's cache or the disk.
    pub fn release(&self) {
        for map in self.files.iter().map(|f| &f.map).chain(self.gguf.as_ref().map(|g| g.map())) {
            // SAFETY: the map is a shared view of a file, and never written: pages
            // dropped are read from the file again, with the same contents.
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// The stored bytes of elements `range`, row-major (never of a GGUF's).
    fn bytes(&self, info: &TensorInfo, range: Range<usize>) -> Cow<'_, [u8]> {
        let (bytes, size) = (&self.files[info.file].map[info.bytes.clone()], info.dtype.size());
        match &info.strides {
            None => Cow::Borrowed(&bytes[range.start * size..range.end * size]),
            Some(strides) => Cow::Owned(pytorch::gather(bytes, size, &info.shape, strides, range)),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is read-only and private to this process. A file that
    // another process truncates meanwhile raises SIGBUS, as with every mapped
    // model file; it cannot corrupt memory.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

/// Parses a JSON file.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::Invalid(format!("{}: not valid JSON: {e}", path.display())))
}

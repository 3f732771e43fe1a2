//! What a checkpoint format is: named tensors that can be read.

use crate::Dtype;
use sparsellm_base::Result;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

/// What is known of a stored tensor without reading it.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Row-major shape. Its product was checked against the file's size.
    pub shape: Vec<usize>,
    /// Element type, and the type it is written in.
    pub dtype: Dtype,
    /// Which of [`TensorSource::weight_files`] holds it.
    pub file: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The names and the contents of files that exist only inside a checkpoint's format.
pub type EmbeddedFiles = Vec<(String, Vec<u8>)>;

/// A checkpoint format: one file implements it, and `Checkpoint::open` names it.
pub trait TensorSource: Send + Sync {
    /// All tensors by name, in order of name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// Reads elements `range` (counted row-major) of the tensor `name` as f32. The
    /// caller has checked that it is there, long enough, and of a readable type.
    ///
    /// # Errors
    /// Where the file does not hold what it promised.
    fn read(&self, name: &str, range: Range<usize>, out: &mut [f32]) -> Result<()>;

    /// The bytes of the tensor `name`, as they would be written; `None` where the
    /// format stores it in another form.
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>>;

    /// The files that hold the weights.
    fn weight_files(&self) -> Vec<PathBuf>;

    /// Files that belong beside the weights and exist only inside this format: a
    /// configuration, a tokenizer. `None` where they lie in the folder anyway.
    ///
    /// # Errors
    /// Where they are damaged.
    fn embedded_files(&self) -> Result<Option<EmbeddedFiles>> {
        Ok(None)
    }

    /// Lets the system read the tensors whose names start with `prefix` from the
    /// disk while something else is done.
    fn prefetch(&self, prefix: &str) {
        let _ = prefix;
    }

    /// Gives back the memory that mapped pages take in this process; what is read
    /// again comes from the system's cache or the disk.
    fn release(&self);
}

/// Finds a source's weight file by its place.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

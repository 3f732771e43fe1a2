//! The interface of a checkpoint format: named tensors that can be read.

use crate::Dtype;
use sparsellm_base::Result;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

/// What is known about a stored tensor without reading it.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Row-major shape. Its product has been checked against the file's size.
    pub shape: Vec<usize>,
    /// The element type, and also the type in which the tensor is written.
    pub dtype: Dtype,
    /// Index into [`TensorSource::weight_files`] of the file that holds the tensor.
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

/// Names and contents of files that exist only inside a checkpoint format.
pub type EmbeddedFiles = Vec<(String, Vec<u8>)>;

/// A checkpoint format. Each is implemented in one file and registered in `Checkpoint::open`.
pub trait TensorSource: Send + Sync {
    /// All tensors, sorted by name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// Reads elements `range` of the tensor `name`, counted in row-major order, as f32. The
    /// caller has checked that it exists, is long enough, and is of a readable type.
    ///
    /// # Errors
    /// Returns an error if the file contradicts its header.
    fn read(&self, name: &str, range: Range<usize>, out: &mut [f32]) -> Result<()>;

    /// The bytes of the tensor `name` as they would be written; `None` if the format stores
    /// it in another form.
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>>;

    /// The files that hold the weights.
    fn weight_files(&self) -> Vec<PathBuf>;

    /// Files that belong with the weights but exist only inside this format, such as a
    /// configuration or a tokenizer; `None` if they lie in the folder already.
    ///
    /// # Errors
    /// Returns an error if they are damaged.
    fn embedded_files(&self) -> Result<Option<EmbeddedFiles>> {
        Ok(None)
    }

    /// Hints to the operating system to load the tensors whose names start with `prefix` from
    /// disk in the background.
    fn prefetch(&self, prefix: &str) {
        let _ = prefix;
    }

    /// Releases the memory that mapped pages occupy in this process; reading them again takes
    /// them from the system's cache or the disk.
    fn release(&self);
}

/// Finds a source's weight file by its place.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

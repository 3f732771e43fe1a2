//! A folder of memory-mapped weight files: safetensors or PyTorch pickles.

use crate::{
    Dtype, PYTORCH, SAFETENSORS, TensorInfo, TensorSource, folder_entry::Entry, pytorch,
    safetensors, weight_files::weight_files,
};
use memmap2::{Advice, Mmap, UncheckedAdvice};
use sparsellm_base::{Error, Result, input_error, refuse_lfs_pointer};
use sparsellm_tensor::decode;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

/// Reads the header of a weight file.
type ReadHeader = fn(&Path, &[u8]) -> Result<Vec<Entry>>;

/// The location of a tensor's bytes.
struct Place {
    bytes: Range<usize>,
    strides: Option<Vec<usize>>,
}

/// The weight files of a checkpoint folder.
pub(crate) struct Folder {
    tensors: BTreeMap<String, TensorInfo>,
    places: BTreeMap<String, Place>,
    files: Vec<(PathBuf, Mmap)>,
}

impl Folder {
    /// Maps the weight files of the folder at `path` and reads their headers.
    ///
    /// # Errors
    /// Returns an error if there are no weight files or one is damaged.
    pub fn open(path: &Path) -> Result<Folder> {
        let (names, read_header) = if let Some(names) = weight_files(path, &SAFETENSORS)? {
            (names, safetensors::read_header as ReadHeader)
        } else if let Some(names) = weight_files(path, &PYTORCH)? {
            (names, pytorch::read_header as ReadHeader)
        } else {
            return input_error!(
                "{}: no weights: it has no {} or {} (nor their .index.json); {}",
                path.display(),
                SAFETENSORS.single,
                PYTORCH.single,
                remedy(path)
            );
        };
        let (mut tensors, mut places) = (BTreeMap::new(), BTreeMap::new());
        let mut files = Vec::new();
        for file_path in names.into_iter().map(|name| path.join(name)) {
            if !file_path.exists() {
                return input_error!(
                    "{}: this file of weights, which the .index.json lists, is missing; download the model again",
                    file_path.display()
                );
            }
            let map = map_file(&file_path)?;
            for Entry { name, dtype, shape, bytes, strides } in read_header(&file_path, &map)? {
                let info = TensorInfo { shape, dtype, file: files.len() };
                if tensors.insert(name.clone(), info).is_some() {
                    return input_error!(
                        "{}: tensor {name} is in two weight files; remove the stale one",
                        path.display()
                    );
                }
                places.insert(name, Place { bytes, strides });
            }
            files.push((file_path, map));
        }
        Ok(Folder { tensors, places, files })
    }

    /// The stored bytes of elements `range` of a tensor, in row-major order.
    fn range(&self, name: &str, range: Range<usize>) -> Option<(Cow<'_, [u8]>, Dtype)> {
        let (info, place) = (self.tensors.get(name)?, self.places.get(name)?);
        let (_, map) = self.files.get(info.file)?;
        let (bytes, size) = (map.get(place.bytes.clone())?, info.dtype.size());
        let bytes = match &place.strides {
            None => Cow::Borrowed(bytes.get(range.start * size..range.end * size)?),
            Some(strides) => Cow::Owned(pytorch::gather(bytes, size, &info.shape, strides, range)),
        };
        Some((bytes, info.dtype))
    }
}

impl TensorSource for Folder {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        match self.range(name, range) {
            Some((bytes, dtype)) => {
                if let Some(float) = dtype.float() {
                    decode(&bytes, float, out);
                }
                Ok(())
            }
            None => input_error!("tensor {name} is not in the mapped files"),
        }
    }

    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let all = 0..self.tensors.get(name)?.len();
        self.range(name, all).map(|(bytes, _)| bytes)
    }

    fn weight_files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    fn prefetch(&self, prefix: &str) {
        let these = self.places.range(prefix.to_string()..);
        for (name, place) in these.take_while(|(name, _)| name.starts_with(prefix)) {
            let file = self.tensors.get(name).and_then(|info| self.files.get(info.file));
            if let Some((_, map)) = file {
                // This is only a hint: if it is ignored, the tensor is read when it is used.
                let _ = map.advise_range(Advice::WillNeed, place.bytes.start, place.bytes.len());
            }
        }
    }

    fn release(&self) {
        self.files.iter().for_each(|(_, map)| release(map));
    }
}

/// What to do about a folder that lacks a file that models have, by what it holds.
pub(crate) fn remedy(folder: &Path) -> &'static str {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let has = |end: &str| names.iter().any(|name| name.ends_with(end));
    if has("adapter_config.json") {
        "it holds an adapter: merge that into its base model, and give the result"
    } else if has(".gguf") {
        "it holds .gguf files: give the path of one of them"
    } else if has(".safetensors") || has(".bin") {
        "it holds weights in files of other names, or their index is missing: download it again, as a model in the format of transformers"
    } else {
        "give a Hugging Face checkpoint folder"
    }
}

/// Maps a file of weights into memory.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    refuse_lfs_pointer(path)?;
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is read-only and private to this process, and it is read through
    // bounds-checked slices of plain bytes. If another process truncates the file meanwhile,
    // reading raises SIGBUS, as with every mapped model file; it cannot corrupt memory.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

/// Releases the memory that a map's pages occupy in this process.
pub(crate) fn release(map: &Mmap) {
    // SAFETY: the map is a shared view of a file and is never written; dropped pages are
    // read from the file again, with the same contents.
    let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
}

//! Copies what belongs to a model besides its weights (configuration, tokenizer, chat
//! templates, code, licence) into the output, and leaves out what would make the output wrong.

use crate::{
    PYTORCH, SAFETENSORS,
    run_folder::{PARTIAL, RECORD, REPORT, sync_folder},
    tensor_source::file_name,
};
use sparsellm_base::{Error, Result};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Extensions of files that hold weights in some format. The output holds the pruned weights
/// as safetensors, and nothing may stand beside them that could be loaded in their place.
const WEIGHTS: [&str; 17] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "ggml",
    "h5",
    "msgpack",
    "onnx",
    "onnx_data",
    "tflite",
    "mlmodel",
    "npz",
    "ot",
    "pdparams",
    "nemo",
];

/// The beginnings of names of files that hold a training run's state, beside the model's.
const TRAINING_FILES: [&str; 5] =
    ["optimizer", "scheduler", "scaler", "rng_state", "training_args"];

/// The beginnings of names of folders that a training run leaves in its model's.
const TRAINING_FOLDERS: [&str; 2] = ["checkpoint-", "global_step"];

/// Files that describe weights as quantized, which the output's are not.
const QUANTIZATION: [&str; 3] =
    ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];

/// No model has folders nested deeper than this.
const DEEPEST: usize = 16;

/// A file or a folder that is no part of the output, as a path in the input's folder, and the
/// reason.
pub type LeftOut = (String, &'static str);

/// Copies the files of the model's folder `from` to `to`, subfolders included. `weights` are
/// the files that the pruned weights replace. Returns what was left out, but for those.
///
/// # Errors
/// Returns an error if a file cannot be read, or the disk cannot be written.
pub(crate) fn carry_over(from: &Path, to: &Path, weights: &[PathBuf]) -> Result<Vec<LeftOut>> {
    let mut replaced: BTreeSet<String> = weights.iter().map(|path| file_name(path)).collect();
    for layout in [SAFETENSORS, PYTORCH] {
        let extension = Path::new(layout.single).extension();
        let sharded = weights.iter().any(|path| path.extension() == extension)
            && !replaced.contains(layout.single);
        replaced.extend(sharded.then(|| layout.index.to_string()));
    }
    replaced.extend([RECORD, REPORT].map(str::to_string));
    let root = from.canonicalize().map_err(|e| Error::io(from, e))?;
    let mut copier = Copier { root, replaced, left_out: Vec::new() };
    copier.copy(from, to, &PathBuf::new())?;
    Ok(copier.left_out)
}

struct Copier {
    root: PathBuf,
    /// The names of files at the root that the output has its own of.
    replaced: BTreeSet<String>,
    left_out: Vec<LeftOut>,
}

impl Copier {
    /// Copies the contents of `inner`, a folder in `from`, to `to`.
    fn copy(&mut self, from: &Path, to: &Path, inner: &Path) -> Result<()> {
        let at_root = inner.as_os_str().is_empty();
        for path in entries(&from.join(inner))? {
            let Some(name) = path.file_name() else { continue };
            let place = inner.join(name);
            let text = name.to_string_lossy();
            // The output itself may be written in the model's folder.
            if at_root && (self.replaced.contains(&*text) || text.starts_with(PARTIAL)) {
                continue;
            }
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let reason = if is_folder {
                folder_left_out(&path, &text, &place)?
            } else {
                file_left_out(&text).or_else(|| self.link_left_out(&path, at_root))
            };
            match reason {
                Some(reason) => self.left_out.push((place.display().to_string(), reason)),
                None if is_folder => self.copy(from, to, &place)?,
                None => copy_file(&path, &to.join(&place))?,
            }
        }
        Ok(())
    }

    /// Why a path that is no folder is not followed to a file. The cache of the hub keeps all
    /// files as links into `blobs`; other links may lead out of the model's folder only from
    /// its root, where they are plain to see.
    fn link_left_out(&self, path: &Path, at_root: bool) -> Option<&'static str> {
        match (fs::metadata(path), path.canonicalize()) {
            (Ok(meta), Ok(target)) if meta.is_file() => {
                let snapshots = self.root.parent().filter(|parent| parent.ends_with("snapshots"));
                let blobs = snapshots.and_then(Path::parent).map(|cache| cache.join("blobs"));
                let inside = target.starts_with(&self.root)
                    || blobs.is_some_and(|blobs| target.starts_with(blobs));
                (!at_root && !inside).then_some("a link out of the model's folder")
            }
            (Ok(meta), _) if !meta.is_dir() => Some("no regular file"),
            _ => Some("a link that leads to no file"),
        }
    }
}

/// Why a file of that name is left out.
fn file_left_out(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    if name.starts_with('.') {
        Some("hidden")
    } else if name == "adapter_config.json" || name.starts_with("adapter_model.") {
        Some("an adapter, which would be applied to the pruned weights")
    } else if QUANTIZATION.contains(&name.as_str()) {
        Some("it describes quantized weights")
    } else if is_weights(&name) {
        Some(match TRAINING_FILES.iter().any(|start| name.starts_with(start)) {
            true => "the state of a training run",
            false => "other weights than the pruned ones",
        })
    } else {
        None
    }
}

/// Why the folder at `path`, which is `place` in the model's, is left out.
fn folder_left_out(path: &Path, name: &str, place: &Path) -> Result<Option<&'static str>> {
    Ok(if name.starts_with('.') {
        Some("hidden")
    } else if TRAINING_FOLDERS.iter().any(|start| name.starts_with(start)) {
        Some("the state of a training run")
    } else if place.components().count() > DEEPEST {
        Some("nested too deep")
    } else {
        let name = |path: &PathBuf| file_name(path).to_lowercase();
        let has_weights = entries(path)?.iter().any(|entry| is_weights(&name(entry)));
        has_weights.then_some("a folder with weights of its own")
    })
}

/// Whether a file of that name, in lower case, holds weights or says where they are.
fn is_weights(name: &str) -> bool {
    let name = name.strip_suffix(".index.json").unwrap_or(name);
    WEIGHTS.iter().any(|extension| {
        name.strip_suffix(extension).is_some_and(|stem| stem.ends_with('.') && stem.len() > 1)
    })
}

/// The paths in a folder, in order of their names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|e| Error::io(folder, e))?;
    entries.sort();
    Ok(entries)
}

/// Copies a file, and returns once it is on disk.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    // A copy from before a crash may be read-only, like its source.
    let _ = fs::remove_file(to);
    fs::copy(from, to).map_err(|e| Error::io(from, e))?;
    File::open(to).and_then(|copy| copy.sync_all()).map_err(|e| Error::io(to, e))?;
    sync_folder(folder)
}

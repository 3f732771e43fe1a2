//! Determines which files of a folder hold its weights.

use crate::read_json;
use sparsellm_base::{Result, input_error};
use std::{collections::BTreeSet, path::Path};

/// The file names that a format uses for its weights.
pub struct Layout {
    /// The only weight file of an unsharded checkpoint.
    pub single: &'static str,
    /// The index of a sharded checkpoint.
    pub index: &'static str,
}

/// Safetensors.
pub const SAFETENSORS: Layout =
    Layout { single: "model.safetensors", index: "model.safetensors.index.json" };

/// PyTorch's pickles.
pub const PYTORCH: Layout =
    Layout { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json" };

/// Lists the weight files of a layout in `folder`, if there are any: the single file (which
/// `transformers` prefers), or else the shards listed in its index.
///
/// # Errors
/// Returns an error if the index is damaged.
pub fn weight_files(folder: &Path, layout: &Layout) -> Result<Option<Vec<String>>> {
    if folder.join(layout.single).is_file() {
        return Ok(Some(vec![layout.single.into()]));
    }
    let index = folder.join(layout.index);
    if index.is_file() { layout.shards(&index).map(Some) } else { Ok(None) }
}

impl Layout {
    /// The distinct file names in an index's `weight_map`.
    pub fn shards(&self, index: &Path) -> Result<Vec<String>> {
        let json = read_json(index)?;
        let Some(map) = json.get("weight_map").and_then(|m| m.as_object()) else {
            return input_error!("{}: it has no \"weight_map\"", index.display());
        };
        let mut names = BTreeSet::new();
        for (tensor, file) in map {
            match file.as_str() {
                Some(name) if is_plain_file_name(name) => names.insert(name.to_string()),
                _ => {
                    return input_error!(
                        "{}: tensor {tensor} is said to be in {file}, which is not a plain file name",
                        index.display()
                    );
                }
            };
        }
        if names.is_empty() {
            return input_error!("{}: its \"weight_map\" is empty", index.display());
        }
        Ok(names.into_iter().collect())
    }
}

/// Whether `name` is a plain file name, which cannot lead outside its folder.
fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

//! Hugging Face folders of safetensors: which files, and what is in them.

use super::{Dtype, Entry, read_json};
use crate::error::{Error, Result, invalid};
use std::{collections::BTreeSet, path::Path};

/// The index of a sharded checkpoint.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The one file of an unsharded checkpoint.
pub(crate) const SINGLE: &str = "model.safetensors";

/// The names of the safetensors files in `folder`, if there are any: the single
/// file (which `transformers` prefers), or the shards its index lists.
pub(crate) fn weight_files(folder: &Path) -> Result<Option<Vec<String>>> {
    if folder.join(SINGLE).is_file() {
        return Ok(Some(vec![SINGLE.into()]));
    }
    let index = folder.join(INDEX);
    if index.is_file() { shards(&index).map(Some) } else { Ok(None) }
}

/// The distinct file names in an index's `weight_map`.
pub(crate) fn shards(index: &Path) -> Result<Vec<String>> {
    let json = read_json(index)?;
    let Some(map) = json.get("weight_map").and_then(|m| m.as_object()) else {
        return invalid!("{}: it has no \"weight_map\"", index.display());
    };
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(name) if is_plain_file_name(name) => names.insert(name.to_string()),
            _ => {
                return invalid!(
                    "{}: tensor {tensor} is said to be in {file}, which is not a plain file name",
                    index.display()
                );
            }
        };
    }
    if names.is_empty() {
        return invalid!("{}: its \"weight_map\" is empty", index.display());
    }
    Ok(names.into_iter().collect())
}

/// Whether `name` stays inside its folder.
fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

/// Parses a file's header: per tensor its type, shape and bytes in the file.
pub(super) fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let damaged = |what: String| {
        Error::Invalid(format!(
            "{}: damaged or truncated safetensors file: {what}; download it again",
            path.display()
        ))
    };
    let (header, metadata) =
        ::safetensors::SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
    // The 8 bytes before the header hold its length.
    let start = header + 8;
    let mut entries = Vec::new();
    for (name, info) in metadata.tensors() {
        let (begin, end) = info.data_offsets;
        if start.checked_add(end).is_none_or(|end| end > bytes.len()) || begin > end {
            return Err(damaged(format!(
                "tensor {name} ends at byte {end} of the data, past the file's end"
            )));
        }
        let dtype = match info.dtype {
            ::safetensors::Dtype::F32 => Dtype::F32,
            ::safetensors::Dtype::F16 => Dtype::F16,
            ::safetensors::Dtype::BF16 => Dtype::Bf16,
            other => Dtype::Other(other),
        };
        entries.push(Entry {
            name: name.clone(),
            dtype,
            shape: info.shape.clone(),
            bytes: start + begin..start + end,
            strides: None,
        });
    }
    Ok(entries)
}

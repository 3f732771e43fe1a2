//! The header of a safetensors file.

use crate::{Dtype, folder_entry::Entry};
use sparsellm_base::{Error, Result};
use std::path::Path;

/// Parses a file's header: the type, the shape and the byte range of each tensor.
pub(crate) fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let damaged = |what: String| {
        Error::Input(format!(
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
            ::safetensors::Dtype::F64 => Dtype::F64,
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

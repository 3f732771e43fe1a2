//! PyTorch's `pytorch_model.bin` (`torch.save`'s zip format), read without
//! executing anything: the pickle inside is interpreted by a machine that knows
//! only what a state dict of tensors is made of, and refuses the rest by name.

mod cursor;
mod machine;
mod opcode;
mod stack;
mod strided;
#[cfg(test)]
mod tests;
mod value;
mod zip;

pub(super) use strided::gather;

use super::{Entry, safetensors};
use crate::error::{Error, Result};
use std::{collections::HashSet, path::Path};

/// The index of a sharded checkpoint.
pub(crate) const INDEX: &str = "pytorch_model.bin.index.json";
/// The one file of an unsharded checkpoint.
pub(crate) const SINGLE: &str = "pytorch_model.bin";

/// The names of the PyTorch weight files in `folder`, if there are any: the
/// single file (which `transformers` prefers), or the shards its index lists.
pub(crate) fn weight_files(folder: &Path) -> Result<Option<Vec<String>>> {
    if folder.join(SINGLE).is_file() {
        return Ok(Some(vec![SINGLE.into()]));
    }
    let index = folder.join(INDEX);
    if index.is_file() { safetensors::shards(&index).map(Some) } else { Ok(None) }
}

/// Finds the tensors of a file, in the order of its state dict.
pub(super) fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let entries = entries(bytes);
    entries.map_err(|what| Error::Invalid(format!("{}: {what}", path.display())))
}

fn entries(bytes: &[u8]) -> cursor::Step<Vec<Entry>> {
    let archive = zip::Archive::open(bytes)?;
    let Some(pickle) = archive.entry("data.pkl") else {
        return Err("a zip file without torch.save's data.pkl".into());
    };
    // Without the entry (torch before 2.1) it is little-endian.
    match archive.entry("byteorder") {
        None | Some(b"little") => {}
        Some(order) => {
            let order = String::from_utf8_lossy(order.get(..8).unwrap_or(order));
            return Err(format!(
                "its byte order is `{}`; save it again on a little-endian machine",
                cursor::shown(&order)
            ));
        }
    }
    let mut names = HashSet::new();
    let mut entries = Vec::new();
    for (name, tensor) in machine::run(&archive, pickle)? {
        if !names.insert(name) {
            return Err(format!("tensor {} is in its state dict twice", cursor::shown(name)));
        }
        let value::Tensor { dtype, shape, bytes, strides } = tensor;
        entries.push(Entry { name: name.into(), dtype, shape, bytes, strides });
    }
    Ok(entries)
}

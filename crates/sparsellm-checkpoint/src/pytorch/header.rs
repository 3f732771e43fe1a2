//! The tensors of a file.

use super::{
    cursor::{Step, shown},
    machine,
    value::Tensor,
    zip::Archive,
};
use crate::folder_entry::Entry;
use sparsellm_base::{Error, Result};
use std::{collections::HashSet, path::Path};

/// Lists the tensors of a file, in the order of its state dict.
pub(crate) fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let entries = entries(bytes);
    entries.map_err(|what| Error::Input(format!("{}: {what}", path.display())))
}

fn entries(bytes: &[u8]) -> Step<Vec<Entry>> {
    let archive = Archive::open(bytes)?;
    let Some(pickle) = archive.entry("data.pkl") else {
        return Err("a zip file without torch.save's data.pkl".into());
    };
    // Files without this entry (torch before 2.1) are little-endian.
    match archive.entry("byteorder") {
        None | Some(b"little") => {}
        Some(order) => {
            let order = String::from_utf8_lossy(order.get(..8).unwrap_or(order));
            return Err(format!(
                "its byte order is `{}`; save it again on a little-endian machine",
                shown(&order)
            ));
        }
    }
    let mut names = HashSet::new();
    let mut entries = Vec::new();
    for (name, tensor) in machine::run(&archive, pickle)? {
        if !names.insert(name) {
            return Err(format!("tensor {} is in its state dict twice", shown(name)));
        }
        let Tensor { dtype, shape, bytes, strides } = tensor;
        entries.push(Entry { name: name.into(), dtype, shape, bytes, strides });
    }
    Ok(entries)
}

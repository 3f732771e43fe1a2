//! JSON files, and digests in hexadecimal.

use serde_json::Value;
use sparsellm_base::{Error, Result, refuse_lfs_pointer};
use std::path::Path;

/// Parses a JSON file.
///
/// # Errors
/// Returns an error if the file cannot be read or is not valid JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    refuse_lfs_pointer(path)?;
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::Input(format!("{}: not valid JSON: {e}", path.display())))
}

/// Formats bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

//! JSON files, and digests in hexadecimal.

use crate::{NotNumber, parse_json};
use serde_json::Value;
use sparsellm_base::{Error, Result, refuse_lfs_pointer};
use std::path::Path;

/// Parses a JSON file, in which Python may have written `NaN` and `Infinity`.
///
/// # Errors
/// Returns an error if the file cannot be read or is not valid JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    refuse_lfs_pointer(path)?;
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    parse_json(text.as_bytes(), NotNumber::Text)
        .map_err(|e| Error::Input(format!("{}: not valid JSON: {e}", path.display())))
}

/// Formats bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

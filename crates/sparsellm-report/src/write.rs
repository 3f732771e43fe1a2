//! Writes the files of a report.

use sparsellm_base::{Error, Result};
use sparsellm_checkpoint::{PARTIAL, folder_of};
use std::{io::Write, path::Path};

/// Writes `text` to the file at `path`, completely or not at all: the text goes to a temporary
/// file in the same folder, which is then renamed. An existing file is replaced.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask
    }
    let mut file = builder.tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    let fail = |e| Error::io(path, e);
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

//! The state of tuning at the end of an epoch, on disk beside the unfinished output.

use sparsellm_base::{Error, Result, input_error};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

/// The file of an epoch's state, in the folder of an unfinished run.
pub fn path(folder: &Path, epoch: usize) -> PathBuf {
    folder.join(format!("tuning-{epoch}"))
}

/// Writes the numbers that `save` passes to its argument to the file at `path`, and waits until
/// they are on the disk.
///
/// # Errors
/// If they cannot be written.
pub fn write(
    path: &Path,
    save: impl FnOnce(&mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let failed = |e| Error::io(path, e);
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    save(&mut |numbers| file.write_all(bytemuck::cast_slice(numbers)).map_err(failed))?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Reads the numbers that were written back, in the same order: `load` passes its argument the
/// places they belong to.
///
/// # Errors
/// If the file cannot be read, or holds another number of numbers.
pub fn read(
    path: &Path,
    load: impl FnOnce(&mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let failed = |e| Error::io(path, e);
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    load(&mut |numbers| file.read_exact(bytemuck::cast_slice_mut(numbers)).map_err(failed))?;
    match file.read(&mut [0]).map_err(failed)? {
        0 => Ok(()),
        _ => input_error!(
            "{}: the state of another run; discard the unfinished run with `force`",
            path.display()
        ),
    }
}

//! Reads the rows of a parquet file.

use super::pages;
use ::parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};
use serde_json::Value;
use sparsellm_base::{Error, Result, panics::catch};
use std::{fs::File, path::Path};

/// The file's rows in order, or the error in one; no page may hold more than `most` bytes.
pub(crate) fn values(
    path: &Path,
    most: u64,
) -> Result<impl Iterator<Item = std::result::Result<Value, String>> + use<>> {
    let fail = |e| Error::io(path, e);
    let file = File::open(path).map_err(fail)?;
    let again = file.try_clone().map_err(fail)?;
    let opened = catch(|| {
        pages::check_footer(&again)?;
        let reader = SerializedFileReader::new(file).map_err(|e| e.to_string())?;
        let mut columns = reader.metadata().row_groups().iter().flat_map(|group| group.columns());
        columns.try_for_each(|column| pages::check(&again, column, most))?;
        Ok(reader)
    });
    let mut rows = opened
        .map_err(|e| {
            let what = format!("damaged or unreadable parquet file ({e}); download it again");
            Error::Input(format!("{}: {what}", path.display()))
        })?
        .into_iter();
    Ok(std::iter::from_fn(move || {
        catch(|| match rows.next() {
            Some(Ok(row)) => Ok(Some(row.to_json_value())),
            Some(Err(e)) => Err(e.to_string()),
            None => Ok(None),
        })
        .transpose()
    }))
}

//! Reads the rows of a parquet file.

use super::pages;
use ::parquet::{
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Value, json};
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
            Some(Ok(row)) => Ok(Some(object(&row))),
            Some(Err(e)) => Err(e.to_string()),
            None => Ok(None),
        })
        .transpose()
    }))
}

/// The fields of a row, or of a group in it.
fn object(row: &Row) -> Value {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// A field's value. Some writers do not mark text as such, so bytes that are UTF-8 are read as
/// text; others, such as an image, are no text, and become an object that says so.
fn value(field: &Field) -> Value {
    match field {
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => text.into(),
            Err(_) => json!({"bytes": bytes.len()}),
        },
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_json_value(),
    }
}

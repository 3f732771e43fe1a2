//! Parquet files, by the `parquet` crate.

use crate::error::{Error, Result};
use ::parquet::file::serialized_reader::SerializedFileReader;
use serde_json::Value;
use std::{
    cell::Cell,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Once,
};

/// A file's rows in order, or what is wrong with one.
pub(super) fn values(
    path: &Path,
) -> Result<impl Iterator<Item = std::result::Result<Value, String>> + use<>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let opened = unwound(|| SerializedFileReader::new(file).map_err(|e| e.to_string()));
    let mut rows = opened
        .map_err(|e| {
            let what = format!("damaged or unreadable parquet file ({e}); download it again");
            Error::Invalid(format!("{}: {what}", path.display()))
        })?
        .into_iter();
    Ok(std::iter::from_fn(move || {
        unwound(|| match rows.next() {
            Some(Ok(row)) => Ok(Some(row.to_json_value())),
            Some(Err(e)) => Err(e.to_string()),
            None => Ok(None),
        })
        .transpose()
    }))
}

thread_local! {
    /// Whether a panic on this thread is nothing to tell the user.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, and has a panic in it be an error: the crate asserts what a
/// damaged file does not keep.
fn unwound<T>(
    body: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    QUIET.set(false);
    result.unwrap_or_else(|_| Err("its parts contradict each other".into()))
}

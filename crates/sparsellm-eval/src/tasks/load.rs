//! Reads the questions of a task from a file.

use super::{item::Item, local, prompts, task::Task};
use sparsellm_base::{Result, input_error};
use sparsellm_data::rows::{Row, at};
use std::path::Path;

/// Reads the first `limit` questions of a task, or all of them, from a file. The rows of the file
/// have the form of the data set on the Hugging Face hub, or one of the other forms in which the
/// data set is distributed.
///
/// # Errors
/// If the file cannot be read or holds no rows, or if a row is not one of this task; the message
/// names the file and the row.
pub fn load(task: Task, path: &Path, limit: Option<usize>) -> Result<Vec<Item>> {
    let rows = local::rows(task, path)?.take(limit.unwrap_or(usize::MAX));
    let items: Vec<Item> = rows
        .map(|row| {
            let Row { number, value } = row?;
            prompts::item(task, &value).map_err(|e| at(path, number, e))
        })
        .collect::<Result<_>>()?;
    if items.is_empty() {
        return input_error!("{}: the file holds no rows", path.display());
    }
    Ok(items)
}

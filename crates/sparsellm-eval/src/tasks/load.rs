//! From a file to a task's questions.

use super::{item::Item, local, prompts, task::Task};
use sparsellm_base::{Result, input_error};
use sparsellm_data::rows::{Row, at};
use std::path::Path;

/// Reads the first `limit` questions of a task, or all of them, from a file. Its
/// rows are those of the data set on the Hugging Face hub, or have one of the other
/// forms in which the data sets go around.
///
/// # Errors
/// Where the file cannot be read or holds no row, or where a row is not what the
/// task's rows are; the message names file and row.
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

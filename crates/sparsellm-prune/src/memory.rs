//! How a run stays within the memory that it may take.

use sparsellm_base::{Result, usage_error};

/// The bytes that the program itself, its threads and a tokenizer take.
pub const PROGRAM: usize = 96 << 20;

/// Whether rows that are needed again later go to temporary files, so that a run stays within
/// `limit` bytes, and the number of bytes that it then `needed` at most: `needed` computes this for
/// rows that are kept in files, or not.
///
/// # Errors
/// If the run needs more memory than it may take even with the files, and those of `needed`.
pub fn within(
    limit: Option<usize>,
    needed: impl Fn(bool) -> Result<usize>,
) -> Result<(bool, usize)> {
    let limit = limit.unwrap_or(usize::MAX);
    let most = needed(false)?;
    if most <= limit {
        return Ok((false, most));
    }
    let least = needed(true)?;
    if least <= limit {
        return Ok((true, least));
    }
    usage_error!(
        "`memory`: this run needs {:.2} GB at least, and {:.2} GB was allowed; use fewer or shorter segments (`samples`, `seq_len`), or allow more",
        least as f64 / 1e9,
        limit as f64 / 1e9
    )
}

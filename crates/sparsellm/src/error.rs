//! The one error type of the library: a sentence for the user that says what
//! was wrong, where, and what to do about it.

use std::path::Path;

/// What went wrong, in words meant for the person at the keyboard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder at fault.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The input (a file, a tensor, a text) is not what it has to be.
    #[error("{0}")]
    Invalid(String),
    /// A setting or argument that no run can honour.
    #[error("{0}")]
    Usage(String),
    /// The observer wanted no more of it.
    #[error("stopped")]
    Stopped,
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operating-system error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().display().to_string(), source }
    }
}

/// `Err(Error::Invalid(..))` from a format string.
macro_rules! invalid {
    ($($arg:tt)*) => { Err($crate::error::Error::Invalid(format!($($arg)*))) };
}

/// `Err(Error::Usage(..))` from a format string.
macro_rules! usage {
    ($($arg:tt)*) => { Err($crate::error::Error::Usage(format!($($arg)*))) };
}

pub(crate) use {invalid, usage};

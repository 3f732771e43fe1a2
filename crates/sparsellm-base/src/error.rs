//! The one error type of sparsellm. Its variant says what kind of thing went
//! wrong, which is what a program needs; its text says what was wrong, where,
//! and what to do about it, which is what a person needs.

use std::path::Path;

/// An error of someone else's, such as an observer's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong.
///
/// Messages name a setting by its field's name in backticks, as in
/// `` `block_size` ``. The command shows it as its flag, Python as its keyword.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder at fault.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An input (a file, a tensor, a text) is not what it has to be.
    #[error("{0}")]
    Input(String),
    /// A setting or an argument that no run can honour.
    #[error("{0}")]
    Usage(String),
    /// Arithmetic came to nothing: values that are not finite, or a matrix that
    /// no damping makes definite.
    #[error("{0}")]
    Numerics(String),
    /// The run was asked to stop.
    #[error("stopped")]
    Interrupted,
    /// An observer answered an event with this error of its own. It ends the run
    /// at once, and nothing is tried again because of it.
    #[error(transparent)]
    Observer(BoxError),
}

/// The result of whatever can fail in sparsellm.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operating-system error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().display().to_string(), source }
    }

    /// An observer's error: one of sparsellm's own stays what it is, any other
    /// is kept as it was given.
    pub fn from_observer(error: BoxError) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::Observer(error),
        }
    }
}

/// `Err(Error::Input(..))` from a format string.
#[macro_export]
macro_rules! input_error {
    ($($arg:tt)*) => { Err($crate::Error::Input(format!($($arg)*))) };
}

/// `Err(Error::Usage(..))` from a format string.
#[macro_export]
macro_rules! usage_error {
    ($($arg:tt)*) => { Err($crate::Error::Usage(format!($($arg)*))) };
}

/// `Err(Error::Numerics(..))` from a format string.
#[macro_export]
macro_rules! numerics_error {
    ($($arg:tt)*) => { Err($crate::Error::Numerics(format!($($arg)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observers_error_is_kept_as_it_was_given() {
        assert!(matches!(Error::from_observer(Error::Interrupted.into()), Error::Interrupted));
        let own = Error::from_observer("mine".into());
        assert!(matches!(&own, Error::Observer(e) if e.to_string() == "mine"));
        assert_eq!(own.to_string(), "mine");
    }
}

//! The one error type of sparsellm. Its variant gives the kind of failure, for programs; its
//! text says what was wrong, where, and what to do about it, for people.

use std::path::Path;

/// An error from outside sparsellm, such as an observer's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong.
///
/// Messages name a setting by its field in backticks, as in `` `block_size` ``. The command
/// line shows it as its flag, and Python as its keyword argument.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder at fault.
        path: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An input (a file, a tensor, a text) is invalid.
    #[error("{0}")]
    Input(String),
    /// A setting or an argument that cannot be honoured.
    #[error("{0}")]
    Usage(String),
    /// A computation broke down: values became non-finite, or no amount of damping made a
    /// matrix positive definite.
    #[error("{0}")]
    Numerics(String),
    /// The run was asked to stop.
    #[error("stopped")]
    Interrupted,
    /// The error that an observer returned for an event. It ends the run at once; nothing is
    /// retried.
    #[error(transparent)]
    Observer(BoxError),
}

/// The result of a sparsellm operation that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operating-system error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().display().to_string(), source }
    }

    /// Converts an observer's error: a sparsellm error keeps its variant, and any other is
    /// wrapped unchanged.
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

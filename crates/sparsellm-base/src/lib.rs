//! The vocabulary shared by every sparsellm crate: [errors](Error) classified by kind, the
//! [events](Event) of a run and the [observer](Observer) that receives them, [guarded
//! calls](panics::catch) into third-party code, and [git-lfs pointers](refuse_lfs_pointer)
//! that stand in place of any file.
//!
//! ```
//! use sparsellm_base::{Error, Event, Observer};
//!
//! // An observer's own error comes back as it was given.
//! let mut observer = Observer::new(|_| Err("the user pressed stop".into()));
//! let stopped = observer.notify(Event::Warning("nearly full".into()));
//! assert!(matches!(stopped, Err(Error::Observer(e)) if e.to_string() == "the user pressed stop"));
//! ```

mod error;
mod event;
mod lfs;
pub mod panics;

pub use error::{BoxError, Error, Result};
pub use event::{Event, Observer};
pub use lfs::refuse_lfs_pointer;

//! Zero-shot tasks, with the prompts and metrics of lm-evaluation-harness 0.4.13, so that the
//! scores can be compared with that program's.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("piqa.jsonl");
//! # let row = r#"{"goal": "To boil water,", "sol1": "heat it.", "sol2": "cool it.", "label": 0}"#;
//! # std::fs::write(&path, row)?;
//! use sparsellm_eval::tasks::{self, Task};
//!
//! let task: Task = "piqa".parse()?;
//! let items = tasks::load(task, &path, Some(100))?; // the first hundred questions
//! assert_eq!(items[0].requests[0], ["Question: To boil water,\nAnswer:", " heat it."]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`evaluate`] asks a model these questions.

mod evaluate;
mod fields;
mod item;
mod load;
mod local;
mod prompts;
mod record;
mod task;

pub use evaluate::evaluate;
pub use item::Item;
pub use load::load;
pub use local::file_in;
pub use record::{ItemReport, TaskReport};
pub use task::Task;

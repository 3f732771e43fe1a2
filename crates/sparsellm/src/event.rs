//! What leaves the library while it works.

use crate::error::Result;
use crate::report::{LayerReport, LinearReport};

/// Watches a run. An error that it answers ends the run there; what was finished
/// by then stays, to go on with.
pub type Observer<'a> = dyn FnMut(Event) -> Result<()> + 'a;

/// What a run tells its observer.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A file is being downloaded.
    Download {
        /// Its path in the repository.
        file: &'a str,
        /// Bytes that are here, those of an earlier attempt included.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
    /// What the run will need of the memory.
    Memory {
        /// Bytes it needs at most.
        needed: usize,
        /// Whether z and s are kept in a temporary file.
        spilled: bool,
    },
    /// Layers that an unfinished run has done are not done again.
    Resumed {
        /// How many.
        done: usize,
        /// How many the run prunes in all.
        of: usize,
    },
    /// A layer's outliers were counted, to allocate sparsity by.
    Outliers {
        /// Layers counted.
        done: usize,
        /// Layers to count.
        of: usize,
    },
    /// A decoder layer's weights were loaded; `of` layers will be pruned.
    Layer {
        /// The layer.
        index: usize,
        /// How many were pruned before it in this run.
        done: usize,
        /// How many this run prunes.
        of: usize,
    },
    /// A linear was pruned.
    Linear {
        /// The layer.
        index: usize,
        /// The linear's name.
        name: &'a str,
        /// How it went.
        report: &'a LinearReport,
    },
    /// SparseLLM finished an epoch.
    Epoch {
        /// The layer.
        index: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The feed-forward network's true error.
        error: f64,
    },
    /// A decoder layer is done and written.
    LayerDone {
        /// How it went.
        report: &'a LayerReport,
    },
    /// Something the user should know.
    Warning(String),
}

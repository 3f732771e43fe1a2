//! What a run tells while it works, and who hears it.

use crate::{BoxError, Error, Result};

/// Something that happened in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file is being downloaded.
    Download {
        /// Its path in the repository.
        file: &'a str,
        /// How many of its bytes are here, those of an earlier attempt included.
        done: u64,
        /// How many bytes it has.
        of: u64,
    },
    /// How much memory the run will need.
    Memory {
        /// The most bytes that it needs.
        needed: usize,
        /// Whether z and s are kept in a temporary file.
        spilled: bool,
    },
    /// Layers that an unfinished run has pruned are not pruned again.
    Resumed {
        /// How many there are.
        done: usize,
        /// How many layers the run prunes in all.
        of: usize,
    },
    /// The run was finished before, and nothing is pruned again.
    FinishedBefore,
    /// A model was run through another decoder layer, to measure something.
    Measured {
        /// What is measured: a text, a task, or `outliers`.
        what: &'a str,
        /// How many layers are done.
        done: usize,
        /// How many there are to do.
        of: usize,
    },
    /// The pruning of a decoder layer begins.
    LayerStarted {
        /// The layer's index.
        index: usize,
        /// How many layers this run has pruned before it.
        done: usize,
        /// How many layers the run prunes in all.
        of: usize,
    },
    /// A linear was pruned.
    LinearPruned {
        /// Its layer's index.
        index: usize,
        /// Its name in the layer.
        name: &'a str,
        /// The fraction of its weights that are zero.
        sparsity: f64,
        /// The relative error of its output, where that is known.
        error: Option<f64>,
        /// How long it took.
        seconds: f64,
    },
    /// SparseLLM finished an epoch.
    EpochDone {
        /// The layer's index.
        index: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The true error of the feed-forward network.
        error: f64,
    },
    /// A decoder layer is pruned and written.
    LayerDone {
        /// The layer's index.
        index: usize,
        /// The epoch whose weights were kept, from 1; 0 where there are none.
        kept_epoch: usize,
    },
    /// Something the user should know.
    Warning(String),
}

/// Hears the events of a run. An error that it answers ends the run; layers that
/// were finished by then stay, and a later run can go on from there.
pub struct Observer<'a> {
    answer: Box<Answer<'a>>,
}

/// How an observer answers an event.
type Answer<'a> = dyn FnMut(Event) -> std::result::Result<(), BoxError> + 'a;

impl<'a> Observer<'a> {
    /// An observer that answers events with `answer`.
    pub fn new(answer: impl FnMut(Event) -> std::result::Result<(), BoxError> + 'a) -> Self {
        Observer { answer: Box::new(answer) }
    }

    /// An observer that hears nothing.
    pub fn silent() -> Self {
        Observer::new(|_| Ok(()))
    }

    /// Tells the observer of an event.
    ///
    /// # Errors
    /// The observer's own error, as it was given.
    pub fn notify(&mut self, event: Event) -> Result<()> {
        (self.answer)(event).map_err(Error::from_observer)
    }
}

impl Default for Observer<'_> {
    fn default() -> Self {
        Observer::silent()
    }
}

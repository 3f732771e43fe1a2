//! The events that a run reports while it works, and the observer that receives them.

use crate::{BoxError, Error, Result};

/// Something that happened in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file is being downloaded.
    Download {
        /// The file's path in the repository.
        file: &'a str,
        /// How many of its bytes are on disk, including those from earlier attempts.
        done: u64,
        /// The file's size in bytes.
        of: u64,
    },
    /// An estimate of the memory that the run will need.
    Memory {
        /// The peak memory, in bytes.
        needed: usize,
        /// Whether z, s and moments are kept in temporary files.
        spilled: bool,
    },
    /// An unfinished run was resumed; the layers it has pruned are not pruned again.
    Resumed {
        /// How many layers were already pruned.
        done: usize,
        /// How many layers the run prunes in all.
        of: usize,
    },
    /// The run had already finished, so nothing is pruned again.
    FinishedBefore,
    /// A measurement has run the model through one more decoder layer.
    Measured {
        /// What is measured: a text, a task, `outliers` or `importance`.
        what: &'a str,
        /// How many layers are done.
        done: usize,
        /// How many there are in all.
        of: usize,
    },
    /// The pruning of a decoder layer begins.
    LayerStarted {
        /// The layer's index.
        index: usize,
        /// How many layers the run has pruned so far.
        done: usize,
        /// How many layers the run prunes in all.
        of: usize,
    },
    /// A linear was pruned.
    LinearPruned {
        /// The index of the linear's layer.
        index: usize,
        /// The linear's name within the layer.
        name: &'a str,
        /// The fraction of its weights that are zero.
        sparsity: f64,
        /// The relative error of its output, if known.
        error: Option<f64>,
        /// How long pruning it took, in seconds.
        seconds: f64,
    },
    /// SparseLLM finished an epoch.
    EpochDone {
        /// The layer's index.
        index: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The true reconstruction error of the feed-forward network.
        error: f64,
    },
    /// A decoder layer has been pruned and written.
    LayerDone {
        /// The layer's index.
        index: usize,
        /// The epoch whose weights were kept, from 1; 0 if there were no epochs.
        kept_epoch: usize,
    },
    /// An epoch of tuning is done.
    Tuned {
        /// The epoch, from 1; 0 for the model before tuning.
        epoch: usize,
        /// The mean loss on the training segments during the epoch.
        training: Option<f64>,
        /// The loss on the held-out segments.
        held_out: f64,
    },
    /// Files and folders of the input that are no part of the output, because they would make
    /// it wrong.
    LeftOut {
        /// The path of each in the input's folder, and the reason.
        paths: &'a [(String, &'static str)],
    },
    /// Something the user should know.
    Warning(String),
}

/// Receives the events of a run. If it returns an error, the run ends; layers finished by
/// then are kept, and a later run can resume from them.
pub struct Observer<'a> {
    answer: Box<Answer<'a>>,
}

/// The callback that handles an event.
type Answer<'a> = dyn FnMut(Event) -> std::result::Result<(), BoxError> + 'a;

impl<'a> Observer<'a> {
    /// Creates an observer that calls `answer` for each event.
    pub fn new(answer: impl FnMut(Event) -> std::result::Result<(), BoxError> + 'a) -> Self {
        Observer { answer: Box::new(answer) }
    }

    /// Creates an observer that ignores every event.
    pub fn silent() -> Self {
        Observer::new(|_| Ok(()))
    }

    /// Passes an event to the observer.
    ///
    /// # Errors
    /// Returns the observer's own error, unchanged.
    pub fn notify(&mut self, event: Event) -> Result<()> {
        (self.answer)(event).map_err(Error::from_observer)
    }
}

impl Default for Observer<'_> {
    fn default() -> Self {
        Observer::silent()
    }
}

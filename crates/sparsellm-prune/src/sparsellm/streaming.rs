//! How SparseLLM streams tokens, and where it keeps z and s.

use crate::rows::{Keep, StateType};
use std::path::PathBuf;

/// How tokens are streamed, and where z and s are kept between epochs.
#[derive(Clone, Debug)]
pub struct Streaming {
    /// The number of tokens per chunk.
    pub chunk: usize,
    /// The folder of a temporary file for z and s; `None` keeps them in memory.
    pub spill: Option<PathBuf>,
}

impl Streaming {
    /// Streams chunks of `chunk` tokens, and keeps z and s in memory.
    pub fn in_memory(chunk: usize) -> Self {
        Streaming { chunk, spill: None }
    }

    /// How z and s are kept, as numbers of the type `state`.
    pub fn keep(&self, state: StateType) -> Keep<'_> {
        Keep { state, spill: self.spill.as_deref() }
    }

    /// Whether rows of the type `state` can be used in place, without a copy.
    pub(super) fn in_place(&self, state: StateType) -> bool {
        self.spill.is_none() && state == StateType::F32
    }
}

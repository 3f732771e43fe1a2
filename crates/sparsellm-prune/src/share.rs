//! One linear's part of a model's sparsity.

use crate::{Pattern, Selection, Settings};
use sparsellm_ranks::Communicator;

/// What is asked of one linear of a model whose linears share its sparsity.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// How many of its weights are removed.
    pub pattern: Pattern,
    /// The importance of each of its rows, as [`Selection::row_weights`]; `None` treats all rows
    /// alike.
    pub row_weights: Option<Vec<f32>>,
}

impl Share {
    /// The selection for all rows of the linear, in the settings' scope.
    pub fn selection<'a>(
        &'a self,
        settings: &Settings,
        ranks: &'a dyn Communicator,
    ) -> Selection<'a> {
        Selection {
            pattern: self.pattern,
            row_weights: self.row_weights.as_deref(),
            ..settings.selection(ranks)
        }
    }
}

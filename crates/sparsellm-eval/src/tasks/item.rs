//! A question of a task.

use serde::Serialize;

/// One question, with a text for each of its choices. The model answers with the choice whose
/// continuation it finds likeliest after its context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// For each choice, the context that the model is given and the continuation that is scored.
    pub requests: Vec<[String; 2]>,
    /// For each choice, its length in characters, by which `acc_norm` divides.
    pub lengths: Vec<usize>,
    /// The index of the right choice.
    pub gold: usize,
}

/// A value read from a row, or a sentence that says what is wrong with the row.
pub type Parsed<T> = std::result::Result<T, String>;

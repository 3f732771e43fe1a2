//! A task's question.

use serde::Serialize;

/// One question: a text for each of its choices. It is asked by how likely a model
/// finds each text's end after its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// For each choice, what the model is given and what is scored after it.
    pub requests: Vec<[String; 2]>,
    /// For each choice, its length in characters, by which `acc_norm` divides.
    pub lengths: Vec<usize>,
    /// The index of the right choice.
    pub gold: usize,
}

/// What a row holds, or what is wrong with it, in words.
pub type Parsed<T> = std::result::Result<T, String>;

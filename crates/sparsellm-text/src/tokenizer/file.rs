//! What a class takes of `tokenizer.json`: its vocabulary and what comes after, not the way it
//! splits text.

use super::{vocabulary::Vocabulary, written::Written};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::PostProcessorWrapper;

/// The parts of `tokenizer.json` that are read apart from the whole.
#[derive(Deserialize)]
pub(super) struct TokenizerFile {
    #[serde(default)]
    pub added_tokens: Vec<AddedAt>,
    #[serde(default)]
    post_processor: Option<PostProcessorWrapper>,
    model: Model,
}

/// An added token and its id.
#[derive(Deserialize)]
pub(super) struct AddedAt {
    pub id: i64,
    #[serde(flatten)]
    pub token: Written,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// A merge, as the crate writes it now and as it did before.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl TokenizerFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Returns an error if it is not a tokenizer's.
    pub fn parse(bytes: &[u8]) -> Result<TokenizerFile, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    /// Returns the vocabulary, and what the tokenizer does with the ids of a text.
    ///
    /// # Errors
    /// Returns an error if an id or a merge is malformed.
    pub fn into_parts(self) -> Result<(Vocabulary, Option<PostProcessorWrapper>), String> {
        let ids = match self.model.vocab {
            Value::Object(tokens) => tokens
                .into_iter()
                .map(|(token, id)| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                    Some(id) => Ok((token, id)),
                    None => Err(format!("the id of {token:?} is {id}")),
                })
                .collect::<Result<_, _>>()?,
            // A unigram model's tokens and their scores.
            Value::Array(tokens) => tokens
                .iter()
                .zip(0..)
                .filter_map(|(token, id)| Some((token.get(0)?.as_str()?.to_string(), id)))
                .collect(),
            _ => return Err("its model has no vocabulary".into()),
        };
        let merges = self.model.merges.into_iter().map(|merge| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Line(line) => match line.split_once(' ') {
                Some((left, right)) => Ok((left.to_string(), right.to_string())),
                None => Err(format!("the merge {line:?} is not two tokens")),
            },
        });
        let merges = merges.collect::<Result<_, _>>()?;
        Ok((Vocabulary { ids, merges }, self.post_processor))
    }
}

//! A vocabulary and its merges, and the two files that GPT-2 keeps them in.

use serde_json::Value;
use sparsellm_base::{Error, Result, input_error, refuse_lfs_pointer};
use sparsellm_checkpoint::read_json;
use std::path::Path;
use tokenizers::models::bpe::{Merges, Vocab};

/// What BPE is made of: the tokens' ids, and the pairs of tokens that are merged, in order.
#[derive(Default)]
pub(super) struct Vocabulary {
    pub ids: Vocab,
    pub merges: Merges,
}

impl Vocabulary {
    /// Reads `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is malformed.
    pub fn read(vocab: &Path, merges: &Path) -> Result<Vocabulary> {
        let Value::Object(tokens) = read_json(vocab)? else {
            return input_error!("{}: not an object of tokens and their ids", vocab.display());
        };
        let mut ids = Vocab::new();
        for (token, id) in tokens {
            let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                return input_error!("{}: the id of {token:?} is {id}", vocab.display());
            };
            ids.insert(token, id);
        }
        refuse_lfs_pointer(merges)?;
        let text = std::fs::read_to_string(merges).map_err(|e| Error::io(merges, e))?;
        let mut pairs = Merges::new();
        let lines = text.lines().enumerate();
        for (at, line) in lines.filter(|(_, l)| !l.is_empty() && !l.starts_with("#version")) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                [left, right] => pairs.push((left.to_string(), right.to_string())),
                _ => {
                    return input_error!(
                        "{}: line {} is not two tokens with a space between them",
                        merges.display(),
                        at + 1
                    );
                }
            }
        }
        Ok(Vocabulary { ids, merges: pairs })
    }

    /// Whether this is OPT's vocabulary, which has `</s>` third.
    pub fn is_opt(&self) -> bool {
        self.ids.get("</s>") == Some(&2)
    }
}

//! A special or added token, as the files write it.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

/// A token as the files write it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    /// Whether it is found in normalized text. Where this is not said, a token that is not
    /// special is.
    pub normalized: Option<bool>,
    pub special: bool,
}

impl Written {
    /// A token that is given as a string, or as an object with its content.
    pub fn of(token: &Value) -> Option<Written> {
        match token {
            Value::String(content) => {
                Some(Written { content: content.clone(), special: true, ..Written::default() })
            }
            Value::Object(object) if object.contains_key("content") => {
                serde_json::from_value(token.clone()).ok()
            }
            _ => None,
        }
    }

    /// The token as the crate takes it.
    pub fn token(&self) -> AddedToken {
        AddedToken::from(self.content.clone(), self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!self.special))
    }
}

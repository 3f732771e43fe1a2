//! Where a model's tokenizer and chat template come from.

use crate::{chat::ChatTemplate, tokenizer::Tokenizer};
use sparsellm_base::Result;
use sparsellm_checkpoint::Checkpoint;
use std::path::PathBuf;

/// What a model makes of text, read when it is asked for: a checkpoint, or the folder of one.
pub trait TokenizerFiles {
    /// Loads the tokenizer.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    fn tokenizer(&self) -> Result<Tokenizer>;

    /// Loads the chat template.
    ///
    /// # Errors
    /// If there is none, or it is not valid.
    fn chat_template(&self) -> Result<ChatTemplate>;
}

impl TokenizerFiles for Checkpoint {
    fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_checkpoint(self)
    }

    fn chat_template(&self) -> Result<ChatTemplate> {
        ChatTemplate::from_checkpoint(self)
    }
}

impl TokenizerFiles for PathBuf {
    fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_folder(self)
    }

    fn chat_template(&self) -> Result<ChatTemplate> {
        ChatTemplate::from_folder(self)
    }
}

//! Tokenizers, chat templates, and segments of the token ids that they produce.
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-llama");
//! use sparsellm_text::Tokenizer;
//!
//! let tokenizer = Tokenizer::from_folder(folder.as_ref())?;
//! assert!(!tokenizer.encode("Once upon a time")?.is_empty());
//! # Ok::<(), sparsellm_base::Error>(())
//! ```

mod chat;
mod files;
mod python_json;
mod segments;
mod tokenizer;

pub use chat::{Chat, ChatTemplate};
pub use files::TokenizerFiles;
pub use segments::Segments;
pub use tokenizer::Tokenizer;

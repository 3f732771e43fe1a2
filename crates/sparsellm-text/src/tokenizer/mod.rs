//! Tokenizers, as transformers 5 makes them of a folder's files.
//!
//! What the files mean is decided in this order:
//!
//! 1. `settings.rs` gathers what is said about special and added tokens, from
//!    `tokenizer_config.json` and, where that lists no `added_tokens_decoder`, from
//!    `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json`.
//! 2. `class.rs` decides which of transformers' classes reads the folder: the one that
//!    `tokenizer_config.json` names, corrected by the model's type.
//! 3. `read.rs` takes the vocabulary from the first of `tokenizer.json` (`file.rs`),
//!    `tokenizer.model` (`sentencepiece.rs`), and `vocab.json` with `merges.txt`
//!    (`vocabulary.rs`).
//! 4. `pipeline.rs` puts that vocabulary into the class's own normalizer, pre-tokenizer and
//!    model. Only where the class has none does the file itself say how text is split.
//! 5. `tokens.rs` adds the special and added tokens, in transformers' order, and so with its
//!    ids, and the template that inserts beginning-of-text and end-of-text.

mod class;
mod file;
mod pipeline;
mod read;
mod sentencepiece;
mod settings;
mod tokens;
mod vocabulary;
mod written;

pub use read::Tokenizer;

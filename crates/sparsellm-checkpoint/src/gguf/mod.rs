//! A `.gguf` file (or the several files of one that was split), presented as the Hugging Face
//! checkpoint it was converted from: with its `config.json`, its tokenizer, and its tensors
//! under their Hugging Face names, in their original row order and with their original values.
//!
//! The files are mapped, and a tensor is dequantized only when it is requested. Nothing in a
//! file is trusted: once it has been opened, every tensor that a model of its architecture and
//! configuration needs is present, has the right shape and lies inside its file.

mod architectures;
mod config;
mod dequantize;
mod dimensions;
mod file;
mod metadata;
mod parts;
mod reader;
mod rope;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;

pub(crate) use file::Gguf;

//! A single `.gguf` file of the `llama` architecture, presented as the Hugging Face
//! checkpoint it was converted from: with its `config.json`, its tokenizer, and its tensors
//! under their Hugging Face names and in their original row order.
//!
//! The file is mapped, and a tensor is dequantized only when it is requested. Nothing in the
//! file is trusted: once it has been opened, every tensor that a llama of its configuration
//! needs is present, has the right shape and lies inside the file.

mod config;
mod dequantize;
mod dimensions;
mod file;
mod metadata;
mod names;
mod reader;
mod rope;
mod source;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;

pub(crate) use file::Gguf;

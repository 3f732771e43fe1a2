//! A single `.gguf` file of the `llama` architecture, seen as the Hugging Face
//! checkpoint it was converted from: its `config.json`, its tensors under
//! their Hugging Face names and in their row order, its tokenizer.
//!
//! The file is mapped, not read: a tensor is dequantised when it is asked for.
//! Nothing in the file is trusted; a file that opens has every tensor a llama
//! of its configuration needs, in the right shape and inside the file.

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

//! The architectures that GGUF files are read of: one file each, which holds all that is
//! known of it (the tensors' names and shapes, what llama.cpp's converter changes in them,
//! and the fields of `config.json`), and a line in the registry.

mod architecture;
mod gemma2;
mod gptneox;
mod llama;
mod mistral3;
mod qwen2;
mod qwen3;
mod registry;

pub(super) use architecture::{Architecture, Change, Role};
pub(super) use registry::find;

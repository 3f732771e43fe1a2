//! The list of architectures.

use super::{
    architecture::Architecture, gemma2::GEMMA2, gptneox::GPTNEOX, llama::LLAMA, mistral3::MISTRAL3,
    qwen2::QWEN2, qwen3::QWEN3,
};
use sparsellm_base::{Error, Result};

/// Every architecture that is read.
const ARCHITECTURES: [&Architecture; 6] = [&LLAMA, &MISTRAL3, &QWEN2, &QWEN3, &GEMMA2, &GPTNEOX];

/// The architecture that llama.cpp calls `name`; `file` is the one that says so.
///
/// # Errors
/// Returns an error if it is not read.
pub(in crate::gguf) fn find(name: &str, file: &str) -> Result<&'static Architecture> {
    ARCHITECTURES.into_iter().find(|known| known.name == name).ok_or_else(|| {
        let known = ARCHITECTURES.map(|known| known.name).join(", ");
        Error::Input(format!(
            "{file}: the architecture is `{name}`; of GGUF files {known} are read. Use the \
             model's Hugging Face checkpoint."
        ))
    })
}

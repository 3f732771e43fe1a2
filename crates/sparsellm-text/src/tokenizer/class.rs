//! Which of transformers' tokenizer classes reads a folder.

use serde_json::Value;
use sparsellm_base::{Result, input_error};
use std::path::Path;

/// A tokenizer class of transformers. All but the first and the last split text in a way of
/// their own, whatever `tokenizer.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `TokenizersBackend`: text is split as the vocabulary's file says.
    Generic,
    /// `GPT2Tokenizer`, also OPT's, and `CodeGenTokenizer`.
    Gpt2,
    /// `GPTNeoXTokenizer`.
    GptNeoX,
    /// `Qwen2Tokenizer`, also Qwen 3's.
    Qwen2,
    /// `Qwen3_5Tokenizer`.
    Qwen35,
    /// `LlamaTokenizer`.
    Llama,
    /// `CodeLlamaTokenizer`.
    CodeLlama,
    /// `GemmaTokenizer`.
    Gemma,
    /// A class that is not known here, by its name.
    Other(String),
}

impl Class {
    /// Decides as transformers' `AutoTokenizer` does. `declared` is the class that
    /// `tokenizer_config.json` names, and `remote` whether it names code of its own besides;
    /// `config` is the model's `config.json`, and `byte_level` says whether `tokenizer.json`
    /// is of a byte-level tokenizer.
    pub fn of(config: &Value, declared: Option<&str>, remote: bool, byte_level: bool) -> Class {
        let text = |key: &str| config.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let model = text("model_type");
        let registered = model.and_then(registered);
        let Some(declared) = declared.or_else(|| text("tokenizer_class")) else {
            return registered.map_or(Class::Generic, named);
        };
        // Some models name a class that is not theirs.
        let mistaken = model.is_some_and(|m| MISTAKEN.contains(&m));
        match registered {
            _ if remote => named(declared),
            Some(GENERIC) => Class::Generic,
            Some(class) if mistaken => named(class),
            // A byte-level vocabulary is not LLaMA's; that of LLaMA 3, for one, is.
            _ if byte_level && named(declared) == Class::Llama => Class::Generic,
            _ => named(declared),
        }
    }

    /// Whether the class keeps its vocabulary in `vocab.json` and `merges.txt`.
    pub fn has_two_files(&self) -> bool {
        matches!(self, Class::Gpt2 | Class::GptNeoX | Class::Qwen2)
    }

    /// Refuses a class that is not known, where no `tokenizer.json` says what it does.
    ///
    /// # Errors
    /// Returns an error if the class is not known.
    pub fn must_be_known(&self, folder: &Path) -> Result<()> {
        match self {
            Class::Other(name) => input_error!(
                "{}: the tokenizer class {name} is not known here; save the tokenizer with transformers as tokenizer.json",
                folder.display()
            ),
            _ => Ok(()),
        }
    }
}

const GENERIC: &str = "TokenizersBackend";

/// The model types whose tokenizers on the hub name a wrong class (of those below).
const MISTAKEN: [&str; 7] =
    ["internlm2", "nemotron", "phi3", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_text"];

/// The class that transformers registers for a model type, where it registers one.
fn registered(model_type: &str) -> Option<&'static str> {
    Some(match model_type {
        "gpt2" | "gpt_neo" | "gptj" | "opt" | "phi" | "starcoder2" => "GPT2Tokenizer",
        "gpt_neox" | "mpt" | "olmo" | "olmoe" => "GPTNeoXTokenizer",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" | "qwen3_next" => "Qwen2Tokenizer",
        "qwen3_5" | "qwen3_5_moe" | "qwen3_5_text" => "Qwen3_5Tokenizer",
        "code_llama" => "CodeLlamaTokenizer",
        "gemma" | "gemma2" | "gemma3" | "gemma3_text" => "GemmaTokenizer",
        "cohere" | "cohere2" => "CohereTokenizer",
        "glm" | "glm4" | "gpt_bigcode" | "granite" | "internlm2" | "ministral" | "mistral"
        | "mixtral" | "nemotron" | "olmo2" | "olmo3" | "phi3" | "stablelm" => GENERIC,
        _ => return None,
    })
}

/// The class of this name, with or without the `Fast` that transformers 4 wrote.
fn named(name: &str) -> Class {
    match name.strip_suffix("Fast").unwrap_or(name) {
        "GPT2Tokenizer" | "CodeGenTokenizer" => Class::Gpt2,
        "GPTNeoXTokenizer" => Class::GptNeoX,
        "Qwen2Tokenizer" => Class::Qwen2,
        "Qwen3_5Tokenizer" => Class::Qwen35,
        "LlamaTokenizer" | "Phi3Tokenizer" => Class::Llama,
        "CodeLlamaTokenizer" => Class::CodeLlama,
        "GemmaTokenizer" => Class::Gemma,
        GENERIC | "BloomTokenizer" | "PreTrainedTokenizer" | "PythonBackend" => Class::Generic,
        _ => Class::Other(name.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_models_type_corrects_the_class() {
        let of = |model: Value, declared: Option<&str>, byte_level: bool| {
            Class::of(&json!({"model_type": model}), declared, false, byte_level)
        };
        let llama = Some("LlamaTokenizerFast");
        assert_eq!(of(json!("llama"), llama, false), Class::Llama);
        assert_eq!(of(json!(null), llama, false), Class::Llama);
        assert_eq!(of(json!("llama"), llama, true), Class::Generic);
        assert_eq!(of(json!("mistral"), llama, false), Class::Generic);
        assert_eq!(of(json!("qwen2"), llama, true), Class::Qwen2);
        assert_eq!(of(json!("qwen3"), Some("PreTrainedTokenizerFast"), true), Class::Generic);
        assert_eq!(of(json!("opt"), None, false), Class::Gpt2);
        assert_eq!(of(json!("llama"), None, false), Class::Generic);
        let other = Class::Other("MineTokenizer".into());
        assert_eq!(of(json!("llama"), Some("MineTokenizer"), false), other);
    }
}

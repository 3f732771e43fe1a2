//! How each class splits text and merges what it has split.

use super::{
    class::Class,
    settings::Settings,
    tokens::{Defaults, Specials},
    vocabulary::Vocabulary,
};
use serde_json::{Value, json};
use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, Tokenizer as Inner, models::bpe::BpeBuilder,
};

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Class {
    /// Whether the class splits text in a way of its own.
    pub fn has_pipeline(&self) -> bool {
        !matches!(self, Class::Generic | Class::Other(_))
    }

    /// The special tokens that the class has unless the settings say otherwise.
    pub fn defaults(&self) -> Defaults {
        const END: &str = "<|endoftext|>";
        let roles: &[(&str, &str)] = match self {
            Class::Generic | Class::Other(_) => &[],
            Class::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Class::GptNeoX => &[
                ("bos_token", END),
                ("eos_token", END),
                ("unk_token", END),
                ("pad_token", "<|padding|>"),
            ],
            Class::Qwen2 | Class::Qwen35 => {
                &[("eos_token", END), ("unk_token", END), ("pad_token", END)]
            }
            Class::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            Class::CodeLlama => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("prefix_token", "▁<PRE>"),
                ("middle_token", "▁<MID>"),
                ("suffix_token", "▁<SUF>"),
                ("eot_token", "▁<EOT>"),
                ("fill_token", "<FILL_ME>"),
            ],
            Class::Gemma => &[
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
        };
        let roles = roles.iter().map(|(role, token)| (*role, token.to_string())).collect();
        Defaults { roles, extras: Vec::new() }
    }

    /// Puts a vocabulary into the class's tokenizer.
    ///
    /// # Errors
    /// Returns an error if the vocabulary lacks a token that a merge makes.
    pub fn tokenizer(
        &self,
        vocabulary: Vocabulary,
        settings: &Settings,
        specials: &Specials,
    ) -> Result<Inner, String> {
        let sentencepiece = matches!(self, Class::Llama | Class::CodeLlama | Class::Gemma);
        let mut bpe = BpeBuilder::new()
            .vocab_and_merges(vocabulary.ids, vocabulary.merges)
            .fuse_unk(sentencepiece)
            .byte_fallback(sentencepiece);
        if matches!(self, Class::CodeLlama | Class::Gemma)
            && let Some(unk) = specials.role("unk_token")
        {
            bpe = bpe.unk_token(unk.to_string());
        }
        let mut inner = Inner::new(bpe.build().map_err(|e| e.to_string())?);
        let normalizer: Option<NormalizerWrapper> = part(self.normalizer())?;
        inner.with_normalizer(normalizer).map_err(|e| e.to_string())?;
        let pre_tokenizer: Option<PreTokenizerWrapper> = part(self.pre_tokenizer(settings))?;
        inner.with_pre_tokenizer(pre_tokenizer);
        Ok(inner)
    }

    fn normalizer(&self) -> Value {
        match self {
            Class::Qwen2 | Class::Qwen35 | Class::GptNeoX => json!({"type": "NFC"}),
            Class::Gemma => json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            _ => Value::Null,
        }
    }

    fn pre_tokenizer(&self, settings: &Settings) -> Value {
        let prefix = settings.get("add_prefix_space").and_then(Value::as_bool);
        let byte_level = |use_regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": prefix.unwrap_or(false),
                   "trim_offsets": true, "use_regex": use_regex})
        };
        let split = |pattern: Value, behavior: &str| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false});
        let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        let regex = |pattern: &str| {
            json!({"type": "Sequence", "pretokenizers":
                [split(json!({"Regex": pattern}), "Isolated"), byte_level(false)]})
        };
        match self {
            Class::Generic | Class::Other(_) => Value::Null,
            Class::Gpt2 | Class::GptNeoX => byte_level(true),
            Class::Qwen2 => regex(QWEN2),
            Class::Qwen35 => regex(QWEN35),
            Class::Llama | Class::CodeLlama if prefix == Some(false) => metaspace("never"),
            // Also after every special token, as LLaMA's first tokenizers did.
            Class::Llama if settings.flag("legacy") => metaspace("always"),
            Class::Llama | Class::CodeLlama => metaspace("first"),
            Class::Gemma => split(json!({"String": " "}), "MergedWithPrevious"),
        }
    }
}

/// A part of a tokenizer, from the way in which `tokenizer.json` would write it.
pub(super) fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<Option<T>, String> {
    serde_json::from_value(json).map_err(|e| e.to_string())
}

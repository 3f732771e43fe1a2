//! The two kinds of tokenizer in GGUF files, in the terms of `tokenizer.json`.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use sparsellm_base::{Result, input_error};

/// Longer pieces are never learnt, so no merges are searched for them.
const LONGEST_PIECE: usize = 1024;

/// The parts of `tokenizer.json` that depend on the kind of tokenizer.
pub(super) struct Vocabulary {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoder: Value,
    pub model: Value,
    /// Whether a text begins with BOS if the metadata do not say.
    pub adds_bos: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Byte-level BPE, as in GPT-2. `tokenizer.ggml.pre` only names the rule by which text is
/// split before merging; the rule itself is not in the file. The defaults for BOS and for
/// whole words are llama.cpp's.
pub(super) fn byte_level(m: &Metadata, tokens: &[&str]) -> Result<Vocabulary> {
    let bytes = |regex: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": regex,
        })
    };
    let cut =
        |first: Value, regex| json!({ "type": "Sequence", "pretokenizers": [first, bytes(regex)] });
    let split = |regex: &str| {
        let pattern = json!({ "Regex": regex });
        let split =
            json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
        cut(split, false)
    };
    let pre = m.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let (normalizer, pre_tokenizer, whole_words) = match pre {
        "default" | "gpt-2" | "phi-2" => (Value::Null, bytes(true), false),
        // GPT-NeoX's tokenizer, in the models for which llama.cpp named it.
        "olmo" | "mpt" => (json!({ "type": "NFC" }), bytes(true), false),
        "smollm" | "starcoder" | "refact" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            (Value::Null, cut(digits, true), false)
        }
        "llama-bpe" | "llama3" | "llama-v3" => (Value::Null, split(LLAMA3), true),
        "tekken" => (Value::Null, split(TEKKEN), true),
        "qwen2" | "deepseek-r1-qwen" => (json!({ "type": "NFC" }), split(QWEN2), false),
        other => {
            return input_error!(
                "{}: the pre-tokenizer `{other}` (tokenizer.ggml.pre) is not known; gpt-2, smollm, \
                 llama-bpe, tekken, qwen2, olmo and mpt are. Use the model's Hugging Face checkpoint.",
                m.file
            );
        }
    };
    let merges = explicit_merges(m)?;
    Ok(Vocabulary {
        normalizer,
        pre_tokenizer,
        decoder: json!({
            "type": "ByteLevel",
            "add_prefix_space": true,
            "trim_offsets": true,
            "use_regex": true,
        }),
        model: model(tokens, &merges, json!({ "ignore_merges": whole_words })),
        adds_bos: whole_words,
    })
}

/// SentencePiece's BPE (LLaMA 1 and 2, Mistral): pieces with scores, fallback to bytes, and a
/// space prepended to the text.
pub(super) fn sentence_piece(
    m: &Metadata,
    tokens: &[&str],
    unk: Option<usize>,
) -> Result<Vocabulary> {
    let merges = match m.floats("tokenizer.ggml.scores")? {
        Some(scores) if scores.len() == tokens.len() => merges_from_scores(tokens, &scores),
        Some(scores) => {
            return input_error!("{}: {} scores for {} tokens", m.file, scores.len(), tokens.len());
        }
        None => explicit_merges(m)?,
    };
    let prefix = m.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let space = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let prepend = json!({ "type": "Prepend", "prepend": "▁" });
    let normalizers = if prefix { vec![prepend, space] } else { vec![space] };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let unknown = unk.and_then(|id| tokens.get(id));
    let settings = json!({ "unk_token": unknown, "fuse_unk": true, "byte_fallback": true });
    Ok(Vocabulary {
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        pre_tokenizer: Value::Null,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
        model: model(tokens, &merges, settings),
        adds_bos: true,
    })
}

fn explicit_merges(m: &Metadata) -> Result<Vec<(&str, &str)>> {
    let key = "tokenizer.ggml.merges";
    let merges = m.required(key, m.texts(key)?)?;
    let mut pairs = Vec::with_capacity(merges.len());
    for (number, merge) in merges.into_iter().enumerate() {
        match merge.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => pairs.push((left, right)),
            _ => {
                return input_error!(
                    "{}: entry {number} of `{key}` is not a pair of tokens",
                    m.file
                );
            }
        }
    }
    Ok(pairs)
}

/// Derives the merges implied by a vocabulary with scores, as Hugging Face does: every way to
/// make a piece from two others, best-scored piece first.
fn merges_from_scores<'a>(tokens: &[&'a str], scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, t)| (*t, id)).collect();
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(scores).filter(|(t, _)| t.len() <= LONGEST_PIECE) {
        let characters = token.chars().count();
        for (left_characters, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((*score, left_characters, characters - left_characters, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(Reverse((a.1, a.2)).cmp(&Reverse((b.1, b.2)))));
    merges.into_iter().map(|(.., left, right)| (left, right)).collect()
}

/// Builds the BPE model; `settings` override the defaults.
fn model(tokens: &[&str], merges: &[(&str, &str)], settings: Value) -> Value {
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let mut model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
    });
    if let (Value::Object(model), Value::Object(settings)) = (&mut model, settings) {
        model.extend(settings);
        model.insert("vocab".to_owned(), Value::Object(vocab));
        model.insert("merges".to_owned(), json!(merges));
    }
    model
}

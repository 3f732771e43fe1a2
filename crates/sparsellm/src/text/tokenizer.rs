//! Tokenizers, by the `tokenizers` crate.

use crate::checkpoint::{Checkpoint, read_json};
use crate::error::{Error, Result, invalid};
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::Tokenizer as Inner;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: Inner,
}

impl Tokenizer {
    /// Loads the tokenizer that belongs to a checkpoint: `tokenizer.json`, or
    /// `vocab.json` + `merges.txt`, or a GGUF's metadata.
    ///
    /// # Errors
    /// Where there is none, or it is damaged.
    pub fn of(checkpoint: &Checkpoint) -> Result<Tokenizer> {
        if let Some(gguf) = checkpoint.gguf() {
            for (name, bytes) in gguf.tokenizer_files()? {
                if name == "tokenizer.json" {
                    return Self::parse(&bytes, &checkpoint.path);
                }
            }
            return invalid!("{}: the file holds no tokenizer", checkpoint.path.display());
        }
        let folder = &checkpoint.path;
        let json = folder.join("tokenizer.json");
        if json.is_file() {
            let bytes = std::fs::read(&json).map_err(|e| Error::io(&json, e))?;
            return Self::parse(&bytes, &json);
        }
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        if vocab.is_file() && merges.is_file() {
            return Self::gpt2(folder, &vocab, &merges);
        }
        invalid!(
            "{}: no tokenizer (tokenizer.json, or vocab.json with merges.txt); add it, or give the text as a .npy file of token ids",
            folder.display()
        )
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Tokenizer> {
        let mut inner = Inner::from_bytes(bytes).map_err(|e| {
            Error::Invalid(format!("{}: not a usable tokenizer: {e}", path.display()))
        })?;
        // Some checkpoints carry truncation or padding from fine-tuning.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        Ok(Tokenizer { inner })
    }

    /// GPT-2's byte-level BPE from its two files, as transformers'
    /// `GPT2Tokenizer` builds it: the beginning-of-text token comes first where
    /// `add_bos_token` says so (OPT: `</s>`).
    fn gpt2(folder: &Path, vocab: &Path, merges: &Path) -> Result<Tokenizer> {
        let ids = read_json(vocab)?;
        let text = std::fs::read_to_string(merges).map_err(|e| Error::io(merges, e))?;
        let merges: Vec<&str> =
            text.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).collect();
        let config_path = folder.join("tokenizer_config.json");
        let config = if config_path.is_file() { read_json(&config_path)? } else { Value::Null };
        let token = |key: &str| match config.get(key) {
            Some(Value::String(s)) => Some(s.clone()),
            Some(object) => object.get("content").and_then(Value::as_str).map(str::to_string),
            None => None,
        };
        // An OPT folder without tokenizer_config.json still is OPT's.
        let opt = ids.get("</s>").and_then(Value::as_u64) == Some(2);
        let add_bos = config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(opt);
        let bos = token("bos_token").or_else(|| opt.then(|| "</s>".to_string()));
        let specials: Vec<Value> = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
            .into_iter()
            .map(str::to_string)
            .chain(
                ["bos_token", "eos_token", "unk_token", "pad_token"]
                    .iter()
                    .filter_map(|k| token(k)),
            )
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .filter_map(|content| Some((ids.get(&content)?.as_u64()?, content)))
            .map(|(id, content)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": true, "special": true})
            })
            .collect();
        let post = match bos.filter(|_| add_bos) {
            None => json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}),
            Some(bos) => {
                let Some(id) = ids.get(&bos).and_then(Value::as_u64) else {
                    return invalid!("{}: the token {bos} is not in it", vocab.display());
                };
                json!({"type": "TemplateProcessing",
                       "single": [{"SpecialToken": {"id": bos, "type_id": 0}},
                                  {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                                {"Sequence": {"id": "B", "type_id": 1}}],
                       "special_tokens": {bos.clone(): {"id": bos, "ids": [id], "tokens": [bos]}}})
            }
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": specials,
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                              "trim_offsets": true, "use_regex": true},
            "post_processor": post,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null,
                      "continuing_subword_prefix": "", "end_of_word_suffix": "",
                      "fuse_unk": false, "byte_fallback": false, "vocab": ids, "merges": merges},
        });
        Self::parse(tokenizer.to_string().as_bytes(), vocab)
    }

    /// The ids of `text`, special tokens (the beginning of text) included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode(text, true)
            .map_err(|e| Error::Invalid(format!("the tokenizer refused the text: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

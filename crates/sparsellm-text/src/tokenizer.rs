//! Tokenizers, implemented by the `tokenizers` crate.

use serde_json::{Map, Value, json};
use sparsellm_base::{Error, Result, input_error, panics::catch};
use sparsellm_checkpoint::{Checkpoint, read_json};
use std::{collections::BTreeSet, path::Path};
use tokenizers::{
    NormalizerWrapper, Tokenizer as Inner,
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
};

/// A model's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    /// The token that a text may start with: beginning-of-text or, failing that, end-of-text.
    start: Option<u32>,
}

impl Tokenizer {
    /// Loads the tokenizer of a checkpoint: from the folder, as
    /// [`from_folder`](Self::from_folder) does, or from inside a GGUF file.
    ///
    /// # Errors
    /// Returns an error if there is no tokenizer, or it is damaged.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Tokenizer> {
        let Some(files) = checkpoint.source().embedded_files()? else {
            return Self::from_folder(&checkpoint.path);
        };
        let file = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes);
        let Some(bytes) = file("tokenizer.json") else {
            return input_error!("{}: the file holds no tokenizer", checkpoint.path.display());
        };
        let settings = file("tokenizer_config.json").map(|b| serde_json::from_slice(b));
        let json = settings.and_then(|json| json.ok()).unwrap_or_default();
        Self::parse(bytes, &checkpoint.path, &TokenizerConfig { json })
    }

    /// Loads the tokenizer of a checkpoint folder from `tokenizer.json` or, failing that,
    /// from `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// Returns an error if there is no tokenizer, or it is damaged.
    pub fn from_folder(folder: &Path) -> Result<Tokenizer> {
        let settings = TokenizerConfig::of(folder)?;
        let json = folder.join("tokenizer.json");
        if json.is_file() {
            let bytes = std::fs::read(&json).map_err(|e| Error::io(&json, e))?;
            let mut tokenizer = Self::parse(&bytes, &json, &settings)?;
            if settings.is_llama(folder)? {
                tokenizer.split_as_llama(&settings);
            }
            return Ok(tokenizer);
        }
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        if vocab.is_file() && merges.is_file() {
            return Self::gpt2(&vocab, &merges, settings);
        }
        input_error!(
            "{}: no tokenizer (tokenizer.json, or vocab.json with merges.txt); add it, or give the text as a .npy file of token ids",
            folder.display()
        )
    }

    fn parse(bytes: &[u8], path: &Path, settings: &TokenizerConfig) -> Result<Tokenizer> {
        let inner = catch(|| Inner::from_bytes(bytes).map_err(|e| e.to_string()));
        let mut inner = inner.map_err(|e| {
            Error::Input(format!("{}: not a usable tokenizer: {e}", path.display()))
        })?;
        // Some checkpoints keep truncation or padding settings from fine-tuning.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let start = settings.text("bos_token").or_else(|| settings.text("eos_token"));
        let start = start.and_then(|token| inner.token_to_id(&token));
        Ok(Tokenizer { inner, start })
    }

    /// Makes text split as in transformers' `LlamaTokenizer`. Since version 5, that class
    /// replaces the normalizer in LLaMA's `tokenizer.json` by a `Metaspace`: no second space
    /// is added to text that starts with one, and none is added after a special token unless
    /// `legacy`.
    fn split_as_llama(&mut self, settings: &TokenizerConfig) {
        let sentencepiece = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        let normalizer = serde_json::to_value(self.inner.get_normalizer()).unwrap_or_default();
        if normalizer != sentencepiece || self.inner.get_pre_tokenizer().is_some() {
            return;
        }
        let scheme = match (settings.get("add_prefix_space"), settings.flag("legacy")) {
            (Some(Value::Bool(false)), _) => PrependScheme::Never,
            (_, true) => PrependScheme::Always,
            (_, false) => PrependScheme::First,
        };
        let _ = self.inner.with_normalizer(None::<NormalizerWrapper>); // refuses only ill-formed ones
        self.inner.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
    }

    /// Builds GPT-2's byte-level BPE from its two files, as transformers' `GPT2Tokenizer`
    /// does: only the tokens that the configuration names are special (for OPT `</s>` and
    /// `<pad>`, so that the text `<unk>` is split), and the beginning-of-text token (for OPT
    /// `</s>`) is prepended if `add_bos_token` is set.
    fn gpt2(vocab: &Path, merges: &Path, mut settings: TokenizerConfig) -> Result<Tokenizer> {
        let ids = read_json(vocab)?;
        let text = std::fs::read_to_string(merges).map_err(|e| Error::io(merges, e))?;
        let merges: Vec<&str> =
            text.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).collect();
        // An OPT folder is treated as OPT's even without tokenizer_config.json.
        let opt = ids.get("</s>").and_then(Value::as_u64) == Some(2);
        if opt {
            for (key, token) in
                [("bos_token", "</s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")]
            {
                settings.json.entry(key).or_insert_with(|| token.into());
            }
        }
        let specials: Vec<Value> = settings
            .specials()
            .into_iter()
            .filter_map(|content| Some((ids.get(&content)?.as_u64()?, content)))
            .map(|(id, content)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": true, "special": true})
            })
            .collect();
        let add_bos = settings.get("add_bos_token").and_then(Value::as_bool).unwrap_or(opt);
        let post = match settings.text("bos_token").filter(|_| add_bos) {
            None => Value::Null,
            Some(bos) => {
                let Some(id) = ids.get(&bos).and_then(Value::as_u64) else {
                    return input_error!("{}: the token {bos} is not in it", vocab.display());
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
            "pre_tokenizer": {"type": "ByteLevel", "trim_offsets": true, "use_regex": true,
                              "add_prefix_space": settings.flag("add_prefix_space")},
            "post_processor": post,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null,
                      "continuing_subword_prefix": "", "end_of_word_suffix": "",
                      "fuse_unk": false, "byte_fallback": false, "vocab": ids, "merges": merges},
        });
        Self::parse(tokenizer.to_string().as_bytes(), vocab, &settings)
    }

    /// Returns the ids of `text`, including the special tokens (such as beginning-of-text)
    /// that the tokenizer adds.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    /// Returns the token that a text may start with (beginning-of-text or, failing that,
    /// end-of-text), and the ids of `text` without any special token.
    ///
    /// # Errors
    /// Returns an error if the tokenizer has no such token, or cannot encode the text.
    pub fn encode_after_start(&self, text: &str) -> Result<(u32, Vec<u32>)> {
        match self.start {
            Some(start) => Ok((start, self.ids(text, false)?)),
            None => input_error!("the tokenizer names no beginning-of-text or end-of-text token"),
        }
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = catch(|| self.inner.encode(text, special).map_err(|e| e.to_string()));
        let refused = |e| Error::Input(format!("the tokenizer refused the text: {e}"));
        Ok(encoding.map_err(refused)?.get_ids().to_vec())
    }
}

/// `tokenizer_config.json`, completed with settings that only `special_tokens_map.json` has.
struct TokenizerConfig {
    json: Map<String, Value>,
}

impl TokenizerConfig {
    fn of(folder: &Path) -> Result<Self> {
        let mut json = Map::new();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            let path = folder.join(name);
            if path.is_file()
                && let Value::Object(more) = read_json(&path)?
            {
                json.extend(more);
            }
        }
        Ok(TokenizerConfig { json })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A setting that is a token or another string.
    fn text(&self, key: &str) -> Option<String> {
        content(self.get(key)?)
    }

    /// Whether transformers reads the folder with its `LlamaTokenizer`. A Mistral model that
    /// names that class is still read as its `tokenizer.json` says.
    fn is_llama(&self, folder: &Path) -> Result<bool> {
        let class = self.text("tokenizer_class").unwrap_or_default();
        let path = folder.join("config.json");
        let config = if path.is_file() { read_json(&path)? } else { Value::Null };
        let model = config.get("model_type").and_then(Value::as_str).unwrap_or("llama");
        Ok(class.trim_end_matches("Fast") == "LlamaTokenizer" && model == "llama")
    }

    /// The special tokens, which are never split.
    fn specials(&self) -> BTreeSet<String> {
        const NAMED: [&str; 7] = [
            "bos_token",
            "eos_token",
            "unk_token",
            "pad_token",
            "mask_token",
            "cls_token",
            "sep_token",
        ];
        let named = NAMED.iter().filter_map(|key| self.text(key));
        let listed = self.get("additional_special_tokens").and_then(Value::as_array);
        let added = self.get("added_tokens_decoder").and_then(Value::as_object);
        named
            .chain(listed.into_iter().flatten().filter_map(content))
            .chain(added.into_iter().flat_map(Map::values).filter_map(content))
            .collect()
    }
}

/// The text of a token, given in the configuration as a string or as an object with its
/// content.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let text = content.as_str().map_or_else(|| content.to_string(), str::to_string);
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn opt_splits_what_only_looks_like_a_special_token() {
        let vocab = json!({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<": 4, ">": 5, "s": 6, "u": 7,
                           "n": 8, "k": 9, "un": 10});
        let merges = json!("#version: 0.2\nu n\n");
        let mut files = vec![("vocab.json", vocab), ("merges.txt", merges)];
        let expected = [2, 4, 10, 9, 5, 1, 2, 4, 6, 5];
        for config in [None, Some(json!({"bos_token": {"content": "</s>"}, "add_bos_token": true}))]
        {
            files.extend(config.map(|c| ("tokenizer_config.json", c)));
            let tokenizer = Tokenizer::from_folder(folder(&files).path()).unwrap();
            assert_eq!(tokenizer.encode("<unk><pad></s><s>").unwrap(), expected);
        }
    }

    #[test]
    fn llama_gives_a_leading_space_no_second_one() {
        let file = json!({"version": "1.0", "added_tokens": [
                {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true}],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"<s>": 0, "▁": 1, "a": 2}, "merges": []}});
        let ids = |config: Value, model: &str| {
            let files = [
                ("tokenizer.json", file.clone()),
                ("tokenizer_config.json", config),
                ("config.json", json!({"model_type": model})),
            ];
            Tokenizer::from_folder(folder(&files).path()).unwrap().encode(" a<s>a").unwrap()
        };
        let class = |legacy: bool| json!({"tokenizer_class": "LlamaTokenizer", "legacy": legacy});
        assert_eq!(ids(class(true), "llama"), [1, 2, 0, 1, 2]);
        assert_eq!(ids(class(false), "llama"), [1, 2, 0, 2]);
        assert_eq!(ids(class(true), "mistral"), [1, 1, 2, 0, 1, 2]);
        assert_eq!(ids(json!({}), "llama"), [1, 1, 2, 0, 1, 2]);
    }
}

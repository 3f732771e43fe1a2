//! Reading a tokenizer, and encoding text with it.

use super::{
    class::Class,
    file::TokenizerFile,
    sentencepiece::SentencePiece,
    settings::{Settings, object},
    tokens::{Defaults, Specials},
    vocabulary::Vocabulary,
};
use serde_json::{Map, Value};
use sparsellm_base::{Error, Result, input_error, panics::catch, refuse_lfs_pointer};
use sparsellm_checkpoint::Checkpoint;
use std::path::Path;
use tokenizers::Tokenizer as Inner;

/// What reading a file gives, or why it is not a usable tokenizer.
type Read<T> = std::result::Result<T, String>;

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
        let settings: Map<_, _> = settings.and_then(|json| json.ok()).unwrap_or_default();
        let settings = Settings::from_config(settings, true);
        guarded(&checkpoint.path, || {
            let inner = Inner::from_bytes(bytes).map_err(|e| e.to_string())?;
            Self::finish(inner, &Class::Generic, &settings, &Defaults::default())
        })
    }

    /// Loads the tokenizer of a checkpoint folder, as transformers' `AutoTokenizer` does: from
    /// `tokenizer.json` or, failing that, from `tokenizer.model` (SentencePiece) or from
    /// `vocab.json` and `merges.txt`. The class that `tokenizer_config.json` names says how text
    /// is split.
    ///
    /// # Errors
    /// Returns an error if there is no tokenizer, or it is damaged, or its class is not known
    /// and no `tokenizer.json` says what it does.
    pub fn from_folder(folder: &Path) -> Result<Tokenizer> {
        let path = folder.join("tokenizer.json");
        let file = if path.is_file() {
            refuse_lfs_pointer(&path)?;
            Some(std::fs::read(&path).map_err(|e| Error::io(&path, e))?)
        } else {
            None
        };
        let settings = Settings::of(folder, file.is_some())?;
        let config = Value::Object(object(&folder.join("config.json"))?);
        let byte_level = file.as_ref().is_some_and(|bytes| contains(bytes, b"\"ByteLevel\""));
        let class = Class::of(&config, settings.class.as_deref(), settings.remote, byte_level);
        if let Some(bytes) = file {
            return guarded(&path, || Self::from_file(&bytes, &class, settings));
        }
        let model = folder.join("tokenizer.model");
        if model.is_file() {
            class.must_be_known(folder)?;
            refuse_lfs_pointer(&model)?;
            let bytes = std::fs::read(&model).map_err(|e| Error::io(&model, e))?;
            return guarded(&model, || Self::from_sentencepiece(&bytes, &class, settings));
        }
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        if vocab.is_file() && merges.is_file() {
            class.must_be_known(folder)?;
            let vocabulary = Vocabulary::read(&vocab, &merges)?;
            return Self::from_vocabulary(vocabulary, class, settings, &vocab);
        }
        input_error!(
            "{}: no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt); add it, or give the text as a .npy file of token ids",
            folder.display()
        )
    }

    /// From `tokenizer.json`.
    fn from_file(bytes: &[u8], class: &Class, mut settings: Settings) -> Read<Tokenizer> {
        let listed = settings.lists_added;
        let mut file = None;
        if class.has_pipeline() || !listed {
            let mut parsed = TokenizerFile::parse(bytes)?;
            let added = std::mem::take(&mut parsed.added_tokens);
            if !listed {
                settings.added.extend(added.into_iter().map(|at| (at.id, at.token)));
            }
            file = Some(parsed);
        }
        let defaults = class.defaults();
        let Some(file) = file.filter(|_| class.has_pipeline()) else {
            let inner = Inner::from_bytes(bytes).map_err(|e| e.to_string())?;
            return Self::finish(inner, class, &settings, &defaults);
        };
        let (vocabulary, post_processor) = file.into_parts()?;
        let specials = Specials::of(&settings, &defaults);
        let mut inner = class.tokenizer(vocabulary, &settings, &specials)?;
        inner.with_post_processor(post_processor);
        Self::finish(inner, class, &settings, &defaults)
    }

    /// From `tokenizer.model`.
    fn from_sentencepiece(bytes: &[u8], class: &Class, mut settings: Settings) -> Read<Tokenizer> {
        let model = SentencePiece::parse(bytes)?;
        if class.has_pipeline() {
            let defaults = Defaults { extras: model.whole_pieces(), ..class.defaults() };
            let specials = Specials::of(&settings, &defaults);
            let inner = class.tokenizer(model.vocabulary()?, &settings, &specials)?;
            return Self::finish(inner, class, &settings, &defaults);
        }
        let inner = model.tokenizer(&settings)?;
        if model.adds_dummy_prefix() {
            // So that each text between them can be given a space of its own.
            settings.added.values_mut().for_each(|token| token.normalized = Some(false));
        }
        Self::finish(inner, class, &settings, &model.defaults())
    }

    /// From `vocab.json` and `merges.txt`. OPT's are read as OPT's even if the folder names no
    /// class.
    fn from_vocabulary(
        vocabulary: Vocabulary,
        mut class: Class,
        mut settings: Settings,
        path: &Path,
    ) -> Result<Tokenizer> {
        let unnamed = settings.class.is_none() && [Class::Generic, Class::Gpt2].contains(&class);
        if unnamed && vocabulary.is_opt() {
            class = Class::Gpt2;
            settings.set_default("add_bos_token", true.into());
            for (role, token) in [
                ("bos_token", "</s>"),
                ("eos_token", "</s>"),
                ("unk_token", "</s>"),
                ("pad_token", "<pad>"),
            ] {
                settings.set_default(role, token.into());
            }
        }
        if !class.has_two_files() {
            return input_error!(
                "{}: no `tokenizer_class` in tokenizer_config.json that has these files (GPT2Tokenizer, GPTNeoXTokenizer or Qwen2Tokenizer) says how text is split; name it, or save the tokenizer with transformers as tokenizer.json",
                path.display()
            );
        }
        guarded(path, || {
            let defaults = class.defaults();
            let specials = Specials::of(&settings, &defaults);
            let inner = class.tokenizer(vocabulary, &settings, &specials)?;
            Self::finish(inner, &class, &settings, &defaults)
        })
    }

    /// Adds the special and added tokens, and what inserts them.
    fn finish(
        mut inner: Inner,
        class: &Class,
        settings: &Settings,
        defaults: &Defaults,
    ) -> Read<Tokenizer> {
        // Some checkpoints keep truncation or padding settings from fine-tuning.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        inner.set_encode_special_tokens(settings.flag("split_special_tokens"));
        let specials = Specials::of(settings, defaults);
        specials.add_to(&mut inner, settings)?;
        let inserts = |key: &str| settings.entry(key).is_some();
        let code_llama = *class == Class::CodeLlama;
        if code_llama
            || *class == Class::GptNeoX
            || inserts("add_bos_token")
            || inserts("add_eos_token")
            || inner.get_post_processor().is_none()
        {
            let bos = settings.flag("add_bos_token") || (code_llama && !inserts("add_bos_token"));
            let template = specials.template(&inner, bos, settings.flag("add_eos_token"))?;
            inner.with_post_processor(template);
        }
        if *class == Class::Qwen2 {
            specials.add_plainly(&mut inner)?;
        }
        let start = specials.role("bos_token").or_else(|| specials.role("eos_token"));
        let start = start.and_then(|token| inner.token_to_id(token));
        Ok(Tokenizer { inner, start })
    }

    /// Returns the ids of `text`, including the special tokens (such as beginning-of-text)
    /// that the tokenizer adds.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    /// Returns the ids of `text`, without any special token that is not written in it.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot encode the text.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }

    /// Returns the token that a text may start with (beginning-of-text or, failing that,
    /// end-of-text), and the ids of `text` without any special token.
    ///
    /// # Errors
    /// Returns an error if the tokenizer has no such token, or cannot encode the text.
    pub fn encode_after_start(&self, text: &str) -> Result<(u32, Vec<u32>)> {
        match self.start {
            Some(start) => Ok((start, self.encode_bare(text)?)),
            None => input_error!("the tokenizer names no beginning-of-text or end-of-text token"),
        }
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = catch(|| self.inner.encode(text, special).map_err(|e| e.to_string()));
        let refused = |e| Error::Input(format!("the tokenizer refused the text: {e}"));
        Ok(encoding.map_err(refused)?.get_ids().to_vec())
    }
}

/// Runs what reads the file at `path`, whose panics are errors of the file.
fn guarded(path: &Path, read: impl FnOnce() -> Read<Tokenizer>) -> Result<Tokenizer> {
    let refused = |e| Error::Input(format!("{}: not a usable tokenizer: {e}", path.display()));
    catch(read).map_err(refused)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

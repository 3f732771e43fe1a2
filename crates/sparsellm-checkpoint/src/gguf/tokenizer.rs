//! Converts the tokenizer in a GGUF file's metadata into the files that Hugging Face's
//! libraries load: `tokenizer.json` and `tokenizer_config.json`.

use serde_json::{Value, json};

use super::file::Gguf;
use super::vocabulary::{Vocabulary, byte_level, sentence_piece};
use sparsellm_base::{Error, Result, input_error};

/// A `tokenizer.ggml.token_type`: not part of any text, and matched as a whole.
const CONTROL: i32 = 3;
/// A `tokenizer.ggml.token_type`: part of the text, but matched as a whole.
const USER_DEFINED: i32 = 4;

/// The ids of the tokens with a special role.
#[derive(Clone, Copy)]
pub(super) struct SpecialIds {
    pub bos: Option<usize>,
    pub eos: Option<usize>,
    pub unk: Option<usize>,
    pub pad: Option<usize>,
}

impl Gguf {
    /// The ids that the metadata give. A SentencePiece vocabulary without any gets those of
    /// LLaMA's own tokenizer, as in llama.cpp.
    pub(super) fn special_ids(&self) -> Result<SpecialIds> {
        let m = &self.metadata;
        let llama = m.text("tokenizer.ggml.model")? == Some("llama");
        let id = |key: &str, default: usize| {
            let id =
                m.number(key)?.or((llama && default < self.dimensions.vocab).then_some(default));
            match id {
                Some(id) if id >= self.dimensions.vocab => {
                    input_error!("{}: `{key}` is {id}, outside the vocabulary", m.file)
                }
                id => Ok(id),
            }
        };
        Ok(SpecialIds {
            bos: id("tokenizer.ggml.bos_token_id", 1)?,
            eos: id("tokenizer.ggml.eos_token_id", 2)?,
            unk: id("tokenizer.ggml.unknown_token_id", 0)?,
            pad: id("tokenizer.ggml.padding_token_id", usize::MAX)?,
        })
    }

    /// Returns the name and the contents of each tokenizer file.
    ///
    /// # Errors
    /// Returns an error if the metadata hold no tokenizer, one that is neither byte-level BPE
    /// nor SentencePiece BPE, one with an unknown pre-tokenizer, or parts that contradict
    /// each other.
    pub fn tokenizer_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let m = &self.metadata;
        let file = &m.file;
        let key = "tokenizer.ggml.tokens";
        let tokens = m.required(key, m.texts(key)?)?;
        if tokens.is_empty() || tokens.len() > self.dimensions.vocab {
            return input_error!(
                "{file}: {} tokens for an embedding of {} rows",
                tokens.len(),
                self.dimensions.vocab
            );
        }
        let types = m.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !types.is_empty() && types.len() != tokens.len() {
            return input_error!("{file}: {} token types for {} tokens", types.len(), tokens.len());
        }
        let ids = self.special_ids()?;
        let key = "tokenizer.ggml.model";
        let vocabulary = match m.required(key, m.text(key)?)? {
            "gpt2" => byte_level(m, &tokens)?,
            "llama" => sentence_piece(m, &tokens, ids.unk)?,
            other => {
                return input_error!(
                    "{file}: the tokenizer is of the kind `{other}`; `gpt2` and `llama` are read"
                );
            }
        };

        let flag = |name: &str, default| {
            m.flag(&format!("tokenizer.ggml.{name}")).map(|flag| flag.unwrap_or(default))
        };
        let add_bos = flag("add_bos_token", vocabulary.adds_bos)? && ids.bos.is_some();
        let add_eos = flag("add_eos_token", false)? && ids.eos.is_some();
        let named = Named { tokens: &tokens, ids, add_bos, add_eos };
        let json = tokenizer_json(&named, &types, vocabulary);
        let config = named.config(
            m.text("tokenizer.chat_template")?,
            m.keys(self.architecture.name).number("context_length")?,
        );
        let bytes = |value: &Value| {
            serde_json::to_vec_pretty(value)
                .map_err(|error| Error::Input(format!("{file}: its tokenizer: {error}")))
        };
        Ok(vec![
            ("tokenizer.json".to_owned(), bytes(&json)?),
            ("tokenizer_config.json".to_owned(), bytes(&config)?),
        ])
    }
}

/// The tokens, with their special roles.
struct Named<'a> {
    tokens: &'a [&'a str],
    ids: SpecialIds,
    add_bos: bool,
    add_eos: bool,
}

impl<'a> Named<'a> {
    fn token(&self, id: Option<usize>) -> Option<&'a str> {
        self.tokens.get(id?).copied()
    }

    /// The post-processor that adds the beginning-of-text and end-of-text tokens.
    fn template(&self) -> Value {
        let bos = self.token(self.ids.bos).filter(|_| self.add_bos);
        let eos = self.token(self.ids.eos).filter(|_| self.add_eos);
        if bos.is_none() && eos.is_none() {
            return Value::Null;
        }
        let special = |token, kind| json!({ "SpecialToken": { "id": token, "type_id": kind } });
        let around = |sequence, kind| {
            let text = json!({ "Sequence": { "id": sequence, "type_id": kind } });
            let before = bos.map(|token| special(token, kind));
            let after = eos.map(|token| special(token, kind));
            before.into_iter().chain([text]).chain(after).collect::<Vec<_>>()
        };
        let described = |id, token| (token, json!({ "id": token, "ids": [id], "tokens": [token] }));
        let bos = bos.map(|token| described(self.ids.bos, token));
        let eos = eos.map(|token| described(self.ids.eos, token));
        let pair = [around("A", 0), around("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": bos.into_iter().chain(eos)
                .map(|(token, value)| (token.to_owned(), value))
                .collect::<serde_json::Map<_, _>>(),
        })
    }

    fn config(&self, chat_template: Option<&str>, context: Option<usize>) -> Value {
        let mut config = json!({
            "add_bos_token": self.add_bos,
            "add_eos_token": self.add_eos,
            "clean_up_tokenization_spaces": false,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        let parts = [
            ("bos_token", self.token(self.ids.bos)),
            ("eos_token", self.token(self.ids.eos)),
            ("unk_token", self.token(self.ids.unk)),
            ("pad_token", self.token(self.ids.pad)),
            ("chat_template", chat_template),
        ];
        for (key, value) in parts {
            if let Some(value) = value {
                config[key] = json!(value);
            }
        }
        if let Some(context) = context {
            config["model_max_length"] = json!(context);
        }
        config
    }
}

fn tokenizer_json(named: &Named<'_>, types: &[i32], vocabulary: Vocabulary) -> Value {
    let SpecialIds { bos, eos, unk, pad } = named.ids;
    let parts = [bos, eos, unk, pad];
    let added = named.tokens.iter().enumerate().filter_map(|(id, token)| {
        let kind = types.get(id).copied().unwrap_or_default();
        let special = kind == CONTROL || parts.contains(&Some(id));
        // An empty token would match everywhere.
        ((special || kind == USER_DEFINED) && !token.is_empty()).then(|| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": special,
            })
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": vocabulary.normalizer,
        "pre_tokenizer": vocabulary.pre_tokenizer,
        "post_processor": named.template(),
        "decoder": vocabulary.decoder,
        "model": vocabulary.model,
    })
}

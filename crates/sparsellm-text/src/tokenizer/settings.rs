//! What the files beside the vocabulary say of a tokenizer, put together as transformers does.

use super::written::Written;
use serde_json::{Map, Value};
use sparsellm_base::{Result, input_error};
use sparsellm_checkpoint::read_json;
use std::{collections::BTreeMap, path::Path};

/// The special tokens with a role, in the order in which transformers adds them.
pub(super) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

const EXTRA: &str = "extra_special_tokens";
/// What transformers 4 called them.
const ADDITIONAL: &str = "additional_special_tokens";

/// The settings of a folder's tokenizer.
#[derive(Default)]
pub(super) struct Settings {
    json: Map<String, Value>,
    /// The class that `tokenizer_config.json` names.
    pub class: Option<String>,
    /// Whether it names code of its own.
    pub remote: bool,
    /// Special tokens with roles of the model's own.
    pub model_specific: Map<String, Value>,
    /// Added tokens by the id that they are listed under.
    pub added: BTreeMap<i64, Written>,
    /// Whether `tokenizer_config.json` lists the added tokens, so that no other file counts.
    pub lists_added: bool,
}

impl Settings {
    /// Reads the settings of a folder; `has_file` says whether it has a `tokenizer.json`.
    ///
    /// # Errors
    /// Returns an error if a file is not valid JSON, or lists a malformed token.
    pub fn of(folder: &Path, has_file: bool) -> Result<Settings> {
        let path = folder.join("tokenizer_config.json");
        let mut settings = Settings::from_config(object(&path)?, has_file);
        if let Some(listed) = settings.json.remove("added_tokens_decoder") {
            settings.lists_added = true;
            let listed = listed.as_object().cloned().unwrap_or_default();
            for (id, token) in &listed {
                let (Ok(id), Some(token)) = (id.parse(), Written::of(token)) else {
                    return input_error!(
                        "{}: `added_tokens_decoder` has a malformed token under {id:?}",
                        path.display()
                    );
                };
                settings.added.insert(id, token);
            }
        } else {
            settings.override_by(object(&folder.join("special_tokens_map.json"))?);
            settings.add_legacy(&folder.join("added_tokens.json"))?;
        }
        Ok(settings)
    }

    /// Takes the settings of a `tokenizer_config.json`. Where there is a `tokenizer.json`, that
    /// alone says which tokens are inserted.
    pub fn from_config(mut json: Map<String, Value>, has_file: bool) -> Settings {
        if has_file {
            json.remove("add_bos_token");
            json.remove("add_eos_token");
        }
        let class = json.remove("tokenizer_class");
        let remote = json.get("auto_map").is_some_and(|map| map.get("AutoTokenizer").is_some());
        if is_empty(json.get(EXTRA))
            && let Some(tokens) = json.remove(ADDITIONAL)
        {
            json.insert(EXTRA.into(), tokens);
        }
        let own = |key: &str, value: &Value| {
            key.ends_with("_token") && value.is_string() && !ROLES.contains(&key)
        };
        let (mut model_specific, json): (Map<_, _>, Map<_, _>) =
            json.into_iter().partition(|(key, value)| own(key, value));
        let mut settings = Settings { json, ..Settings::default() };
        settings.class = class.and_then(|c| Some(c.as_str()?.to_string()));
        settings.remote = remote;
        settings.model_specific.append(&mut model_specific);
        settings.take_named_extras();
        settings
    }

    /// `extra_special_tokens` that are an object name roles of the model's own.
    fn take_named_extras(&mut self) {
        if let Some(Value::Object(extras)) = self.json.get_mut(EXTRA) {
            self.model_specific.append(extras);
            self.json.remove(EXTRA);
        }
    }

    /// `special_tokens_map.json`, which overrides `tokenizer_config.json`.
    fn override_by(&mut self, map: Map<String, Value>) {
        for (key, mut value) in map {
            if key == EXTRA && value.is_array() {
                let mut extras = self.extras().to_vec();
                let more = value.as_array().into_iter().flatten();
                extras.extend(more.filter(|token| !self.extras().contains(token)).cloned());
                value = extras.into();
            } else if let Some(token) = value.as_object_mut()
                && key != EXTRA
            {
                token.insert("special".into(), true.into());
            }
            self.json.insert(key, value);
        }
        self.take_named_extras();
    }

    /// `added_tokens.json`: tokens and their ids, special where they have a role.
    fn add_legacy(&mut self, path: &Path) -> Result<()> {
        let roles = ROLES.iter().filter_map(|role| self.get(role));
        let special: Vec<String> =
            roles.chain(self.extras()).filter_map(Written::of).map(|t| t.content).collect();
        for (content, id) in object(path)? {
            let Some(id) = id.as_i64() else {
                return input_error!("{}: the id of {content:?} is {id}", path.display());
            };
            let special = special.contains(&content);
            let normalized = Some(!special);
            self.added.insert(id, Written { content, special, normalized, ..Written::default() });
        }
        Ok(())
    }

    /// The value of a setting, unless that is null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    /// The value of a setting, null too.
    pub fn entry(&self, key: &str) -> Option<&Value> {
        self.json.get(key)
    }

    /// All settings, in their order.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.json.iter()
    }

    /// Sets what is not set, not to null either.
    pub fn set_default(&mut self, key: &str, value: Value) {
        self.json.entry(key).or_insert(value);
    }

    /// Whether a setting is true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The extra special tokens; `None` where the key is not there at all.
    pub fn listed_extras(&self) -> Option<&[Value]> {
        self.json.get(EXTRA).map(|list| list.as_array().map_or(&[][..], Vec::as_slice))
    }

    /// The special tokens without a role.
    pub fn extras(&self) -> &[Value] {
        let additional = || Some(self.json.get(ADDITIONAL)?.as_array()?.as_slice());
        self.listed_extras().or_else(additional).unwrap_or_default()
    }
}

/// Whether Python takes a value for false.
fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// The object in a JSON file; an empty one where there is no file.
pub(super) fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    match read_json(path)? {
        Value::Object(object) => Ok(object),
        _ => input_error!("{}: not a JSON object", path.display()),
    }
}

//! Chat templates: conversations written out as a model was trained on them.

use crate::python_json::Dumps;
use minijinja::{
    Environment, Error as Jinja, ErrorKind, Value as JinjaValue,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, ValueKind},
};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value};
use sparsellm_base::{Error, Result, input_error};
use sparsellm_checkpoint::{Checkpoint, read_json};
use std::{collections::BTreeMap, fmt, path::Path};

/// The tokens that a template may name.
const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The names under which a message's reasoning goes around; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The work that writing out one conversation may take, in units of about 64 bytes or one
/// operation: enough for many megabytes of text, and an end to a template that has none.
const FUEL: u64 = 1 << 23;

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// The messages in order, each a JSON object such as `{"role": "user", "content": "Hi"}`.
    pub messages: Vec<Value>,
    /// The tools that the model may call, a list of JSON schemas.
    pub tools: Option<Value>,
}

/// A model's chat template, rendered as transformers' `apply_chat_template` renders it.
///
/// One thing differs: a template is not told the date. `strftime_now` is not defined, so that the
/// same conversation gives the same text on any day. LLaMA 3's templates then write the date
/// that they give for this case; a template that calls the function all the same is an error.
/// (The engine is `minijinja`. It iterates over `none` as if it were an empty list, where Python
/// raises an error, and prints numbers below 10⁻⁴ or from 10¹⁶ on as Rust does, except in `tojson`.)
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Loads the template of a checkpoint: from the folder, as [`from_folder`](Self::from_folder)
    /// does, or from inside a GGUF file.
    ///
    /// # Errors
    /// If there is no chat template, or it is not valid.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<ChatTemplate> {
        let Some(files) = checkpoint.source().embedded_files()? else {
            return Self::from_folder(&checkpoint.path);
        };
        let config = files.iter().find(|(name, _)| name == "tokenizer_config.json");
        let config = config.and_then(|(_, bytes)| serde_json::from_slice(bytes).ok());
        let config: Map<String, Value> = config.unwrap_or_default();
        Self::new(&templates_in(&config), tokens_in(&config), &checkpoint.path)
    }

    /// Loads the template of a checkpoint folder: from `chat_template.jinja` and
    /// `additional_chat_templates/` or, if there are none, from `tokenizer_config.json`.
    ///
    /// # Errors
    /// If there is no chat template, or it cannot be read or is not valid.
    pub fn from_folder(folder: &Path) -> Result<ChatTemplate> {
        let mut config = Map::new();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            let path = folder.join(name);
            if path.is_file()
                && let Value::Object(more) = read_json(&path)?
            {
                config.extend(more);
            }
        }
        let mut templates = template_files(folder)?;
        if templates.is_empty() {
            templates = templates_in(&config);
        }
        Self::new(&templates, tokens_in(&config), folder)
    }

    /// Compiles a model's templates, given by their names. `tokens` are the special tokens that
    /// they may name, such as `bos_token`, and `path` is where the model is.
    fn new(
        templates: &BTreeMap<String, String>,
        tokens: Map<String, Value>,
        path: &Path,
    ) -> Result<ChatTemplate> {
        if templates.is_empty() {
            return input_error!(
                "{}: the model has no chat template (chat_template.jinja, or \"chat_template\" in tokenizer_config.json), which conversations need; add it, or give texts in their place",
                path.display()
            );
        }
        let mut environment = environment();
        for name in ["default", "tool_use"] {
            let Some(source) = templates.get(name) else { continue };
            let source = with_for_generation(&source.replace("\r\n", "\n").replace('\r', "\n"));
            environment.add_template_owned(name, source).map_err(|e| {
                let what = explained(&e);
                Error::Input(format!("{}: the {name} chat template: {what}", path.display()))
            })?;
        }
        if environment.templates().next().is_none() {
            let names: Vec<&str> = templates.keys().map(String::as_str).collect();
            return input_error!(
                "{}: none of the model's chat templates is the default one; they are {}",
                path.display(),
                names.join(", ")
            );
        }
        Ok(ChatTemplate { environment, tokens })
    }

    /// Writes out a conversation; with `add_generation_prompt`, followed by what begins the
    /// model's answer. Where there are tools, the template named `tool_use` is taken if the model
    /// has one. The text has all its special tokens: it is to be tokenized without adding any.
    ///
    /// # Errors
    /// If the conversation has no messages, or the template refuses it.
    pub fn render(&self, chat: &Chat, add_generation_prompt: bool) -> Result<String> {
        if chat.messages.is_empty() {
            return input_error!("the conversation has no messages");
        }
        let messages = chat.messages.iter().map(normalized).collect::<Result<Vec<_>>>()?;
        let with_tools = chat.tools.as_ref().and(self.environment.get_template("tool_use").ok());
        let template = with_tools.map_or_else(|| self.environment.get_template("default"), Ok);
        let mut variables = self.tokens.clone();
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), chat.tools.clone().into());
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let text = template.and_then(|template| template.render(Serde(variables)));
        text.map_err(|e| Error::Input(format!("the chat template: {}", explained(&e))))
    }
}

/// The templates in a folder's own files.
fn template_files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut templates = BTreeMap::new();
    let mut add = |name: &str, path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        templates.insert(name.to_string(), text);
        Ok::<_, Error>(())
    };
    let default = folder.join("chat_template.jinja");
    if default.is_file() {
        add("default", &default)?;
    }
    let more = folder.join("additional_chat_templates");
    if more.is_dir() {
        for entry in std::fs::read_dir(&more).map_err(|e| Error::io(&more, e))? {
            let path = entry.map_err(|e| Error::io(&more, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_suffix(".jinja")) {
                add(name, &path)?;
            }
        }
    }
    Ok(templates)
}

/// The templates in a tokenizer's configuration: one, several by name, or a list of them with
/// their names.
fn templates_in(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let named = |name: &str, text: &Value| Some((name.to_string(), text.as_str()?.to_string()));
    match config.get("chat_template") {
        Some(text @ Value::String(_)) => named("default", text).into_iter().collect(),
        Some(Value::Object(all)) => {
            all.iter().filter_map(|(name, text)| named(name, text)).collect()
        }
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(|one| named(one.get("name")?.as_str()?, one.get("template")?))
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// The special tokens in a tokenizer's configuration, by the names that templates use. Each is
/// given as a string, or as an object with its content.
fn tokens_in(config: &Map<String, Value>) -> Map<String, Value> {
    let token = |name: &&str| {
        let token = config.get(*name)?;
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        Some((name.to_string(), text.into()))
    };
    NAMED_TOKENS.iter().filter_map(token).collect()
}

/// A message without the fields that are null, and with its reasoning under the names that
/// templates read.
fn normalized(message: &Value) -> Result<Map<String, Value>> {
    let Some(fields) = message.as_object() else {
        return input_error!("a message is no object with a role and a content");
    };
    let mut fields = fields.clone();
    fields.retain(|_, value| !value.is_null());
    let reasoning = REASONING.iter().find_map(|name| fields.get(*name)).cloned();
    if let Some(reasoning) = reasoning {
        let mut all = Map::from_iter([("thinking".to_string(), reasoning.clone())]);
        all.append(&mut fields);
        all.insert("reasoning_content".into(), reasoning);
        fields = all;
    }
    Ok(fields)
}

/// Jinja as transformers sets it up for chat templates.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    if let Ok(syntax) = syntax {
        environment.set_syntax(syntax);
    }
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    // As in Python, all that has a length and items, which strings and mappings have, too; and
    // `none` is nothing to iterate over.
    environment.add_test("sequence", |value: &JinjaValue| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), Seq | String | Map | Undefined)
    });
    environment
        .add_test("iterable", |value: &JinjaValue| !value.is_none() && value.try_iter().is_ok());
    environment
}

/// Replaces the tags of `{% generation %}`, with which transformers marks what the model said, by
/// tags that do nothing: the marks are for training.
fn with_for_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inner, after)) = tag.split_once("%}") else { break };
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let inner = match word {
            "generation" => inner.replace("generation", "with"),
            "endgeneration" => inner.replace("endgeneration", "endwith"),
            _ => inner.to_string(),
        };
        out.extend([before, "{%", &inner, "%}"]);
        rest = after;
    }
    out + rest
}

/// The filter `tojson`: Python's `json.dumps`, with transformers' defaults.
fn to_json(value: &JinjaValue, arguments: Kwargs) -> std::result::Result<String, Jinja> {
    let bad = |e: &dyn fmt::Display| Jinja::new(ErrorKind::BadSerialization, e.to_string());
    if value.is_undefined() {
        return Err(bad(&"tojson of a value that is not defined"));
    }
    let indent: Option<usize> = arguments.get("indent")?;
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let separators = match separators.map(<[String; 2]>::try_from) {
        Some(Ok(separators)) => separators,
        Some(Err(_)) => return Err(bad(&"tojson takes two separators")),
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(String::from),
    };
    let ensure_ascii = arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    arguments.assert_all_used()?;
    let mut json = serde_json::to_value(value).map_err(|e| bad(&e))?;
    if sort_keys {
        json.sort_all_objects();
    }
    Dumps { ensure_ascii, indent, separators }.write(&json).map_err(|e| bad(&e))
}

/// What a template says of a conversation that it refuses.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "it refuses the conversation: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// The function `raise_exception`, with which a template refuses a conversation.
fn raise_exception(message: String) -> std::result::Result<JinjaValue, Jinja> {
    Err(Jinja::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refused(message)))
}

/// An error of the template engine in words.
fn explained(e: &Jinja) -> String {
    let source = std::error::Error::source(e).and_then(|source| source.downcast_ref::<Refused>());
    match source {
        Some(refused) => refused.to_string(),
        None if e.to_string().contains("strftime_now") => format!(
            "it writes today's date (strftime_now), with which the same command would give something else tomorrow; write a date into the template in its place ({e})"
        ),
        None => e.to_string(),
    }
}

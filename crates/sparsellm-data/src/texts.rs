//! The texts that a file's rows hold: as they are, or conversations that the model's chat
//! template writes out.

use crate::rows::{Row, at};
use serde_json::{Map, Value, json};
use sparsellm_base::{Event, Observer, Result};
use sparsellm_text::{Chat, ChatTemplate, Tokenizer, TokenizerFiles};
use std::path::Path;

/// The fields that a row's text is looked for in; the first that is not null is taken.
const FIELDS: [&str; 4] = ["text", "sentence", "messages", "conversations"];

/// Those of them that hold conversations, which some files have as JSON in a text.
const CHATS: [&str; 2] = ["messages", "conversations"];

/// How many of a row's fields an error names.
const NAMED: usize = 16;

/// What a row holds.
pub(crate) enum Content {
    Text(String),
    Chat(Chat),
    /// The field is there, and has no value.
    Null,
}

/// The rows of a file.
pub(crate) type Contents = Box<dyn Iterator<Item = Result<Row<Content>>>>;

/// An iterator over the texts of a file. All its rows are texts, or all are conversations.
pub(crate) struct Texts<'a> {
    path: &'a Path,
    contents: Contents,
    files: &'a dyn TokenizerFiles,
    /// Loaded for the first conversation.
    template: Option<ChatTemplate>,
    /// Whether the rows are conversations, once a row has told.
    chats: Option<bool>,
    /// How many rows have no text.
    nulls: usize,
}

impl<'a> Texts<'a> {
    pub fn new(path: &'a Path, contents: Contents, files: &'a dyn TokenizerFiles) -> Texts<'a> {
        Texts { path, contents, files, template: None, chats: None, nulls: 0 }
    }

    /// What stands between two texts where texts are joined by `separator`. Conversations are
    /// not: their template says where each begins and ends.
    pub fn separator<'s>(&self, separator: &'s str) -> &'s str {
        if self.are_chats() { "" } else { separator }
    }

    /// A text's token ids. Conversations have all their special tokens from the template, and
    /// get no others.
    ///
    /// # Errors
    /// If the tokenizer cannot encode the text.
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        match self.are_chats() {
            true => tokenizer.encode_bare(text),
            false => tokenizer.encode(text),
        }
    }

    /// Tells how many of the rows read so far have no text.
    ///
    /// # Errors
    /// Returns the observer's own error.
    pub fn tell_of_nulls(&self, observe: &mut Observer) -> Result<()> {
        if self.nulls == 0 {
            return Ok(());
        }
        let (file, nulls) = (self.path.display(), self.nulls);
        observe.notify(Event::Warning(format!(
            "{file}: rows skipped because their text is null: {nulls}"
        )))
    }

    fn are_chats(&self) -> bool {
        self.chats == Some(true)
    }

    /// A row's text; `None` if it has none.
    fn text(&mut self, row: Row<Content>) -> Result<Option<String>> {
        let is_chat = match row.value {
            Content::Null => {
                self.nulls += 1;
                return Ok(None);
            }
            Content::Text(_) => false,
            Content::Chat(_) => true,
        };
        if *self.chats.get_or_insert(is_chat) != is_chat {
            let what = "texts and conversations in one file; put them into two";
            return Err(at(self.path, row.number, what));
        }
        match row.value {
            Content::Chat(chat) => {
                let template = match self.template.take() {
                    Some(template) => template,
                    None => self.files.chat_template()?,
                };
                let text = self.template.insert(template).render(&chat, false);
                text.map(Some).map_err(|e| at(self.path, row.number, e))
            }
            Content::Text(text) => Ok(Some(text)),
            Content::Null => Ok(None),
        }
    }
}

impl Iterator for Texts<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        loop {
            let row = self.contents.next()?;
            if let Some(text) = row.and_then(|row| self.text(row)).transpose() {
                return Some(text);
            }
        }
    }
}

/// What a row holds in its field `field`, or else in one of the usual fields.
pub(crate) fn content(row: Value, field: Option<&str>) -> std::result::Result<Content, String> {
    let Value::Object(mut row) = row else {
        return Err(format!("not a row of this kind: {} in place of an object", kind(&row)));
    };
    let fields = field.as_ref().map_or(FIELDS.as_slice(), std::slice::from_ref);
    let Some(found) = fields.iter().find(|field| row.contains_key(**field)) else {
        return Err(missing(&row, field));
    };
    let filled = fields.iter().find(|field| row.get(**field).is_some_and(|value| !value.is_null()));
    let field = filled.unwrap_or(found);
    let value = row.remove(*field);
    match if CHATS.contains(field) { value.map(parsed) } else { value } {
        Some(Value::String(text)) => Ok(Content::Text(text)),
        Some(Value::Array(messages)) => {
            let messages = messages.into_iter().map(message).collect::<std::result::Result<_, _>>();
            let messages = messages.map_err(|e| format!("\"{field}\": {e}"))?;
            Ok(Content::Chat(Chat { messages, tools: tools(row)? }))
        }
        None | Some(Value::Null) => Ok(Content::Null),
        Some(other) => {
            let kind = kind(&other);
            Err(format!("not a row of this kind: \"{field}\" is {kind}, not a text or messages"))
        }
    }
}

/// The messages that a text holds as JSON; any other value as it is.
fn parsed(value: Value) -> Value {
    let parse = |text: &str| serde_json::from_str::<Vec<Map<String, Value>>>(text).ok();
    match value.as_str().and_then(parse) {
        Some(messages) => messages.into(),
        None => value,
    }
}

/// That a row has no field with a text.
fn missing(row: &Map<String, Value>, field: Option<&str>) -> String {
    let quoted = |name: &str| format!("\"{name}\"");
    let wanted = field.map_or_else(|| FIELDS.map(quoted).join(" or "), quoted);
    let mut has: Vec<String> = row.keys().take(NAMED).map(|name| quoted(name)).collect();
    if row.len() > NAMED {
        has.push(format!("{} more", row.len() - NAMED));
    }
    let has = if has.is_empty() { "none".into() } else { has.join(", ") };
    format!("no {wanted} field; it has {has}; name the one that holds the text with `text_field`")
}

/// A message with a role and a content. ShareGPT calls these `from` and `value`.
fn message(message: Value) -> std::result::Result<Value, String> {
    if message.get("role").is_some() {
        return Ok(message);
    }
    let role = match message.get("from").and_then(Value::as_str) {
        Some("human") => "user",
        Some("gpt") => "assistant",
        Some(other) => other,
        None => return Err("a message has no \"role\", and no \"from\"".into()),
    };
    Ok(json!({"role": role, "content": message.get("value")}))
}

/// The tools that go with a conversation, which some files hold as JSON in a text.
fn tools(mut row: Map<String, Value>) -> std::result::Result<Option<Value>, String> {
    match row.remove("tools") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map_err(|e| format!("\"tools\" is not valid JSON: {e}"))
        }
        tools => Ok(tools),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

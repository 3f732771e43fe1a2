//! Conversations are written out as transformers' `apply_chat_template` writes them.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value, json};
use sparsellm_base::Result;
use sparsellm_testing::fixture;
use sparsellm_text::{Chat, ChatTemplate};
use std::{fs, path::Path};
use tempfile::TempDir;

fn read(name: &str) -> Value {
    let text = fs::read_to_string(fixture("chat").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn chat(value: &Value) -> Chat {
    let messages = value["messages"].as_array().unwrap().clone();
    Chat { messages, tools: value.get("tools").cloned() }
}

fn hello() -> Chat {
    chat(&read("conversations.json")["hello"])
}

fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// What the template in this configuration makes of the conversation.
fn render(config: Value, chat: &Chat) -> Result<String> {
    let folder = folder(&[("tokenizer_config.json", config.to_string())]);
    ChatTemplate::from_folder(folder.path())?.render(chat, false)
}

fn error(template: &str) -> String {
    render(json!({"chat_template": template}), &hello()).unwrap_err().to_string()
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let (templates, rendered) = (read("templates.json"), read("rendered.json"));
    let conversations = read("conversations.json");
    let mut compared = 0;
    for (name, model) in templates.as_object().unwrap() {
        let mut config = model["tokens"].clone();
        config["chat_template"] = model["template"].clone();
        let folder = folder(&[("tokenizer_config.json", config.to_string())]);
        let template = ChatTemplate::from_folder(folder.path()).unwrap();
        for (title, conversation) in conversations.as_object().unwrap() {
            for (i, add_generation_prompt) in [false, true].into_iter().enumerate() {
                let got = template.render(&chat(conversation), add_generation_prompt);
                match rendered[name][title][i].as_str() {
                    Some(want) => assert_eq!(got.unwrap(), want, "{name}: {title}"),
                    None => drop(got.expect_err(&format!("{name}: {title}"))),
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 90);
}

#[test]
fn templates_are_found_where_transformers_finds_them() {
    let text = |files: &[(&str, String)], tools: bool| {
        let folder = folder(files);
        let chat = Chat { tools: tools.then(|| json!([])), ..hello() };
        ChatTemplate::from_folder(folder.path()).unwrap().render(&chat, false).unwrap()
    };
    let config = |template: Value| {
        let config = json!({"chat_template": template, "bos_token": {"content": "<s>"}});
        ("tokenizer_config.json", config.to_string())
    };
    let named = |name: &str, template: &str| json!({"name": name, "template": template});
    let both =
        json!([named("tool_use", "T"), named("default", "D{{ bos_token }}"), named("rag", "{%")]);
    assert_eq!(text(&[config(json!("one"))], true), "one");
    assert_eq!(text(&[config(both.clone())], false), "D<s>");
    assert_eq!(text(&[config(both.clone())], true), "T");
    assert_eq!(text(&[config(json!({"default": "D"}))], true), "D");
    // Files replace all that the configuration has.
    let file = ("chat_template.jinja", "file {{ bos_token }}{{ eos_token }}".to_string());
    let map =
        ("special_tokens_map.json", json!({"eos_token": "</s>", "bos_token": "no"}).to_string());
    assert_eq!(text(&[config(both.clone()), file.clone(), map], true), "file <s></s>");
    let more = ("additional_chat_templates/tool_use.jinja", "more".to_string());
    assert_eq!(text(&[config(both), file, more], true), "more");
}

#[test]
fn what_cannot_be_written_out_is_said_in_words() {
    assert!(ChatTemplate::from_folder(Path::new("/nonexistent")).is_err());
    let none = render(json!({"chat_template": null}), &hello()).unwrap_err().to_string();
    assert!(none.contains("the model has no chat template"), "{none}");
    let rag = json!({"chat_template": [{"name": "rag", "template": "R"}]});
    let rag = render(rag, &hello()).unwrap_err().to_string();
    assert!(
        rag.contains("none of the model's chat templates is the default one; they are rag"),
        "{rag}"
    );
    let broken = error("one\n{% if %}");
    assert!(
        broken.contains("the default chat template: syntax error") && broken.contains(":2"),
        "{broken}"
    );
    let refused = error("{{ raise_exception('after ' ~ messages[0].role) }}");
    assert_eq!(refused, "the chat template: it refuses the conversation: after user");
    let date = error("{{ strftime_now('%d %b %Y') }}");
    assert!(date.contains("it writes today's date"), "{date}");
    let endless = error(
        "{% for i in range(9999) %}{% for j in range(9999) %}{{ i }}{% endfor %}{% endfor %}",
    );
    assert!(endless.contains("ran out of fuel"), "{endless}");
    let empty = render(json!({"chat_template": "x"}), &Chat::default()).unwrap_err().to_string();
    assert!(empty.contains("no messages"), "{empty}");
    let text = Chat { messages: vec![json!("Hi")], tools: None };
    assert!(render(json!({"chat_template": "x"}), &text).is_err());
}

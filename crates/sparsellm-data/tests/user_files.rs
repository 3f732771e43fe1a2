//! Files as users bring them: written on Windows or by pandas, with fields of any name,
//! conversations, and token ids of any integer type.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use sparsellm_base::{Event, Observer, Result};
use sparsellm_data::Source;
use sparsellm_testing::{assets, fixture};
use sparsellm_text::{Segments, Tokenizer};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

fn path(file: &str) -> String {
    fixture("user-files").join(file).display().to_string()
}

fn read(file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path(file)).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn tiny_llama() -> PathBuf {
    assets().join("tiny-llama")
}

fn ids(text: &str) -> Vec<u32> {
    Tokenizer::from_folder(&tiny_llama()).unwrap().encode(text).unwrap()
}

/// The whole text in windows of one token, and what the observer was warned of.
fn windows(source: Source, model: &PathBuf) -> (Result<Segments>, Vec<String>) {
    let mut warnings = Vec::new();
    let mut observe = Observer::new(|event| {
        if let Event::Warning(text) = event {
            warnings.push(text);
        }
        Ok(())
    });
    let windows = source.windows(1, None, model, &mut observe);
    drop(observe);
    (windows, warnings)
}

fn tokens(argument: &str) -> Vec<u32> {
    let (windows, warnings) = windows(Source::file(argument).unwrap(), &tiny_llama());
    assert!(warnings.is_empty(), "{warnings:?}");
    windows.unwrap().tokens
}

/// The error for a file of this name and text, with `text_field`.
fn error(name: &str, bytes: &[u8], text_field: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, bytes).unwrap();
    let source = Source::file(&file.display().to_string()).unwrap();
    let source = source.text_field(text_field.map(String::from));
    windows(source, &tiny_llama()).0.unwrap_err().to_string()
}

#[test]
fn text_is_read_as_pythons_text_mode_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    for case in read("text-mode.json").as_array().unwrap() {
        let (bytes, text) = (case["bytes"].as_str().unwrap(), case["text"].as_str().unwrap());
        fs::write(&file, bytes.chars().map(|c| c as u8).collect::<Vec<_>>()).unwrap();
        let want: Vec<u32> = if text.trim().is_empty() { Vec::new() } else { ids(text) };
        let (got, _) = windows(Source::file(&file.display().to_string()).unwrap(), &tiny_llama());
        assert_eq!(got.map_or(Vec::new(), |windows| windows.tokens), want, "{bytes:?}");
    }
    for bom in [b"\xff\xfea\0\r\0\n\0", b"\xfe\xff\0a\0\r\0\n"] {
        for name in ["a.txt", "a.raw", "a.jsonl", "a.json"] {
            let message = error(name, bom, None);
            assert!(message.contains("UTF-16 or UTF-32; save it as UTF-8"), "{message}");
        }
    }
}

#[test]
fn rows_without_a_text_are_skipped_and_counted() {
    let want = read("pandas-texts.json");
    for (field, skipped) in [("text", 2), ("body", 1)] {
        let text = texts(&want[field]).join(" ");
        for file in ["pandas.jsonl", "pandas.json", "pandas.parquet"] {
            let source = Source::file(&path(file)).unwrap();
            // `text` is the field that is looked for anyway.
            let name = Some(field.to_string()).filter(|field| field == "body");
            let (got, warnings) = windows(source.text_field(name), &tiny_llama());
            assert_eq!(got.unwrap().tokens, ids(&text), "{field} {file}");
            let warning =
                format!("{}: rows skipped because their text is null: {skipped}", path(file));
            assert_eq!(warnings, [warning]);
        }
    }
    let documents = Source::file(&format!("c4:{}", path("pandas.jsonl"))).unwrap();
    let mut warned = false;
    let mut observe = Observer::new(|event| {
        warned |= matches!(event, Event::Warning(_));
        Ok(())
    });
    let drawn = documents.segments(3, 4, 0, &tiny_llama(), &mut observe).unwrap();
    drop(observe);
    assert_eq!((drawn.count(), warned), (3, true));
}

#[test]
fn a_row_without_a_text_says_what_it_has() {
    let row = b"{\"id\": 1, \"content\": \"x\"}\n";
    let message = error("a.jsonl", row, None);
    let says = "row 1: no \"text\" or \"sentence\" or \"messages\" or \"conversations\" field; it has \"id\", \"content\"; name the one that holds the text with `text_field`";
    assert!(message.ends_with(says), "{message}");
    let message = error("a.jsonl", row, Some("body"));
    assert!(message.contains("no \"body\" field; it has \"id\", \"content\";"), "{message}");
    let many: String = (0..40).map(|i| format!("\"f{i}\": 1,")).collect();
    let message = error("a.jsonl", format!("{{{many}\"z\": 1}}").as_bytes(), None);
    assert!(message.contains("\"f15\", 25 more; name"), "{message}");
    for (row, says) in [
        ("\"text\"", "row 1: not a row of this kind: a text in place of an object"),
        ("{\"text\": {}}", "row 1: not a row of this kind: \"text\" is an object, not a text"),
        ("{\"text\": [\"a\"]}", "row 1: \"text\": a message has no \"role\""),
        ("{}", "it has none; name"),
        ("{\"text\": null}", "the file holds no text"),
        (
            "{\n  \"text\": \"x\"\n}",
            "row 1: not valid JSON by itself (each line is to hold an object",
        ),
        ("{\"messages\": []}", "row 1: the conversation has no messages"),
        ("{\"messages\": [{\"role\": \"user\"}], \"tools\": \"{\"}", "\"tools\" is not valid JSON"),
    ] {
        let message = match row.contains("messages") {
            true => chat_error(row),
            false => error("a.jsonl", row.as_bytes(), None),
        };
        assert!(message.contains(says), "{row}: {message}");
    }
}

#[test]
fn bytes_that_are_not_marked_as_text_are_text_if_they_are_utf8() {
    let want = read("unmarked.json");
    let file = path("unmarked.parquet");
    assert_eq!(tokens(&file), ids(&texts(&want).join(" ")));
    let model = chat_model();
    let talk = Source::file(&file).unwrap().text_field("talk".to_string());
    let (got, _) = windows(talk, &model.path().to_path_buf());
    let chat: String = texts(&want).iter().map(|text| format!("<s>user: {text}\n")).collect();
    let tokenizer = Tokenizer::from_folder(&tiny_llama()).unwrap();
    assert_eq!(got.unwrap().tokens, tokenizer.encode_bare(&chat).unwrap());
    let image = Source::file(&file).unwrap().text_field("image".to_string());
    let message = windows(image, &tiny_llama()).0.unwrap_err().to_string();
    assert!(message.contains("row 1: not a row of this kind: \"image\" is an object"), "{message}");
}

#[test]
fn conversations_may_be_plain_texts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    for text in ["Human: Hi!", "[1] Hi!", "[\"Hi!\"]", "[\"Hi!\", {}"] {
        fs::write(&file, serde_json::json!({"conversations": text}).to_string()).unwrap();
        assert_eq!(tokens(&file.display().to_string()), ids(text), "{text}");
    }
}

/// The tokenizer of tiny-llama with the fixture's chat template.
fn chat_model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny_llama().join(file), folder.path().join(file)).unwrap();
    }
    let template = read("chats.json")["template"].as_str().unwrap().to_string();
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

fn chat_error(rows: &str) -> String {
    let model = chat_model();
    let file = model.path().join("a.jsonl");
    fs::write(&file, rows).unwrap();
    let source = Source::file(&file.display().to_string()).unwrap();
    windows(source, &model.path().to_path_buf()).0.unwrap_err().to_string()
}

#[test]
fn conversations_go_through_the_models_template() {
    let (model, want) = (chat_model(), read("chats.json"));
    let model = model.path().to_path_buf();
    for (file, field) in [
        ("chats.jsonl", None),
        ("chats.parquet", None),
        ("sharegpt.jsonl", None),
        ("chats-as-text.jsonl", None),
        ("chats.jsonl", Some("messages")),
    ] {
        for protocol in ["", "wikitext2:", "ptb:", "c4:"] {
            let source = Source::file(&format!("{protocol}{}", path(file))).unwrap();
            let (got, _) = windows(source.text_field(field.map(String::from)), &model);
            assert_eq!(got.unwrap().tokens, numbers(&want["ids"]), "{protocol}{file}");
        }
    }
    // As for C4, a segment is part of one conversation.
    let source = Source::file(&format!("c4:{}", path("chats.jsonl"))).unwrap();
    let drawn = source.segments(8, 12, 0, &model, &mut Observer::silent()).unwrap();
    let each: Vec<Vec<u32>> = want["each"].as_array().unwrap().iter().map(numbers).collect();
    for segment in drawn.tokens.chunks(12) {
        assert!(each.iter().any(|chat| chat.windows(12).any(|part| part == segment)));
    }
    // Other protocols draw from all of them.
    let source = Source::file(&path("chats.jsonl")).unwrap();
    let drawn = source.segments(2, 40, 0, &model, &mut Observer::silent()).unwrap();
    let all = numbers(&want["ids"]);
    assert!(drawn.tokens.chunks(40).all(|drawn| all.windows(40).any(|part| part == drawn)));
}

#[test]
fn conversations_that_cannot_be_written_out_are_refused() {
    let source = Source::file(&path("chats.jsonl")).unwrap();
    let message = windows(source, &tiny_llama()).0.unwrap_err().to_string();
    assert!(message.contains("the model has no chat template"), "{message}");
    let chat = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}";
    let mixed = chat_error(&format!("{chat}\n{{\"text\": \"x\"}}\n"));
    assert!(
        mixed.ends_with("row 2: texts and conversations in one file; put them into two"),
        "{mixed}"
    );
    let bad = chat_error(&format!("{chat}\n{{\"messages\": [{{\"role\": \"user\"}}]}}\n"));
    assert!(bad.contains("row 2: the chat template: "), "{bad}");
}

#[test]
fn token_ids_of_every_integer_type_are_read() {
    let want = numbers(&read("ids.json"));
    for kind in ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "rows", "columns"] {
        assert_eq!(tokens(&path(&format!("ids-{kind}.npy"))), want, "{kind}");
    }
    // The rows of a 2-D array are the segments.
    let source = Source::file(&path("ids-rows.npy")).unwrap();
    let observe = &mut Observer::silent();
    let segments = source.segments(2, 3, 0, &tiny_llama(), observe).unwrap();
    assert_eq!(segments, Segments::new(want.clone(), 3));
    let segments = source.segments(1, 4, 0, &tiny_llama(), observe).unwrap();
    assert_eq!(segments.tokens, want[..4]);
    for (file, says) in [
        ("ids-big-endian.npy", "the array is big-endian; save it with .astype('<i4')"),
        ("ids-cube.npy", "the array must have one or two dimensions"),
        ("ids-float.npy", "the array must hold integers, such as uint16; it is \"<f4\""),
    ] {
        let source = Source::file(&path(file)).unwrap();
        let message = windows(source, &tiny_llama()).0.unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

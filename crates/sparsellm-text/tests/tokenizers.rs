//! Token ids against transformers' `AutoTokenizer`, on tiny tokenizers of every kind
//! (`tools/fixtures/vocabularies.py`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use sparsellm_testing::fixture;
use sparsellm_text::{Segments, Tokenizer};
use std::{fs, path::Path};
use tempfile::TempDir;

/// A folder with what a case copies and writes.
fn folder(case: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in case["copy"].as_object().unwrap() {
        let from = fixture("tokenizers").join(from.as_str().unwrap());
        fs::copy(from, folder.path().join(name)).unwrap();
    }
    for (name, content) in case["write"].as_object().unwrap() {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_kind_gives_transformers_ids() {
    let cases = read(&fixture("tokenizers/cases.json"));
    let texts: Vec<String> = serde_json::from_value(cases["texts"].clone()).unwrap();
    let awkward = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/checks/strings.json");
    let awkward: Vec<String> = serde_json::from_value(read(&awkward)).unwrap();
    let mut wrong = Vec::new();
    for (name, case) in cases["cases"].as_object().unwrap() {
        let tokenizer = match Tokenizer::from_folder(folder(case).path()) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(texts.len(), expected.len());
        for (text, ids) in texts.iter().zip(expected) {
            let ours = tokenizer.encode(text);
            if !ours.as_ref().is_ok_and(|ours| *ours == ids) {
                wrong.push(format!("{name}: {text:?}: {ours:?}, and not {ids:?}"));
            }
        }
        let digests = case["digests"].as_str().unwrap();
        assert_eq!(digests.len(), 8 * awkward.len());
        for (at, text) in awkward.iter().enumerate() {
            let ours = tokenizer.encode(text).map(|ids| Segments::new(ids, 1).digest());
            let expected = &digests[8 * at..8 * at + 8];
            if !ours.as_ref().is_ok_and(|ours| ours.starts_with(expected)) {
                wrong.push(format!("{name}: {text:?}: {ours:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_no_class_explains_is_refused_by_name() {
    let two = json!({"vocab.json": "bytes-vocab.json", "merges.txt": "bytes-merges.txt"});
    let model = json!({"tokenizer.model": "llama.model"});
    let class = |name: &str| json!({"tokenizer_config.json": {"tokenizer_class": name}});
    for (copy, write, words) in [
        (&two, class("MineTokenizer"), "MineTokenizer is not known"),
        (&model, class("MineTokenizerFast"), "MineTokenizerFast is not known"),
        (&two, class("LlamaTokenizer"), "no `tokenizer_class`"),
        (&two, json!({"config.json": {"model_type": "mistral"}}), "no `tokenizer_class`"),
    ] {
        let folder = folder(&json!({"copy": copy, "write": write}));
        // Not OPT's, whose files need no class.
        let vocab = folder.path().join("vocab.json");
        if vocab.is_file() {
            let text = fs::read_to_string(&vocab).unwrap().replace("</s>", "</S>");
            fs::write(&vocab, text).unwrap();
        }
        let error = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
        assert!(
            error.contains("save the tokenizer with transformers as tokenizer.json"),
            "{error}"
        );
    }
}

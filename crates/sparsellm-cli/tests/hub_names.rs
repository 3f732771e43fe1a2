//! Tests data sets and tasks by name. Each comes from the file on the hub that holds it, and is
//! read as its authors read it.
#![allow(clippy::unwrap_used)]

mod common;

use common::hub::{Hub, Rules};
use common::{asset, json, repository};
use serde_json::Value;
use tempfile::TempDir;

fn fixture(path: &str) -> String {
    let fixtures = repository().join("crates/sparsellm-testing/fixtures");
    fixtures.join(path).display().to_string()
}

/// Runs the command against a hub whose data set `repo` holds the fixture `path` as `file`.
fn with_hub(repo: &str, file: &str, path: &str, args: &[&str]) -> Value {
    let bytes = std::fs::read(fixture(path)).unwrap();
    let hub = Hub::serve(&format!("datasets/{repo}"), vec![(file.into(), bytes)], Rules::default());
    let home = TempDir::new().unwrap();
    let run = |args: &[&str]| {
        let output = hub.run(home.path(), args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first: Value = run(args);
    assert!(!hub.requests().is_empty());
    // The cached file is enough for a run without network access.
    assert_eq!(run(&[args, &["--offline"]].concat()), first);
    assert!(hub.requests().is_empty());
    first
}

#[test]
fn texts_by_name_are_the_files_read_as_their_authors_do() {
    let (model, file) = (asset("tiny-llama"), "texts/snappy.parquet");
    let eval = |data: &str| {
        ["eval", &model, "--seq-len", "12", "--json", "--data", data].map(String::from)
    };
    for (name, repo, path) in [
        ("wikitext2", "Salesforce/wikitext", "wikitext-2-raw-v1/test-00000-of-00001.parquet"),
        ("ptb", "ptb-text-only/ptb_text_only", "penn_treebank/test/0000.parquet"),
        ("hf://datasets/org/set/a/b.parquet", "org/set", "a/b.parquet"),
        ("hf://datasets/org/set@refs/pr/1/b.parquet", "org/set", "b.parquet"),
    ] {
        let args = eval(name);
        let report = with_hub(repo, path, file, &args.each_ref().map(String::as_str));
        let local = match name.starts_with("hf:") {
            true => fixture(file),
            false => format!("{name}:{}", fixture(file)),
        };
        let args = eval(&local);
        let same = json(&args.each_ref().map(String::as_str));
        assert_eq!(report["results"][0]["perplexity"], same["results"][0]["perplexity"], "{name}");
        assert_eq!(report["results"][0]["data"], name);
    }
}

#[test]
fn calibration_by_name_is_the_train_split() {
    let out = TempDir::new().unwrap();
    let (model, file) = (asset("tiny-llama"), "texts/rows.json.gz");
    let weights = |calibration: &str, run: &dyn Fn(&[&str])| {
        let out = out.path().join(calibration.replace(['/', ':'], "-"));
        run(&[
            "prune",
            &model,
            "--output",
            out.to_str().unwrap(),
            "--method",
            "sparsegpt",
            "--samples",
            "3",
            "--seq-len",
            "6",
            "--calibration",
            calibration,
            "--json",
            "--layers",
            "0..1",
        ]);
        std::fs::read(out.join("model.safetensors")).unwrap()
    };
    let home = TempDir::new().unwrap();
    let bytes = std::fs::read(fixture(file)).unwrap();
    let files = vec![("en/c4-train.00000-of-01024.json.gz".into(), bytes)];
    let hub = Hub::serve("datasets/allenai/c4", files, Rules::default());
    let named = weights("c4", &|args| {
        let output = hub.run(home.path(), args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let local = weights(&format!("c4:{}", fixture(file)), &|args| drop(json(args)));
    let plain = weights(&fixture(file), &|args| drop(json(args)));
    assert!(named == local && named != plain);
}

#[test]
fn tasks_by_name_come_from_the_hub() {
    let model = asset("tiny-llama");
    let (repo, path) = ("allenai/ai2_arc", "ARC-Easy/test-00000-of-00001.parquet");
    let args = ["eval", &model, "--tasks", "arc_easy", "--limit", "5", "--json"];
    let report = with_hub(repo, path, "zeroshot/documents/arc_easy.parquet", &args);
    let tasks = format!("arc_easy:{}", fixture("zeroshot/local/arc_easy.json"));
    let local = json(&["eval", &model, "--tasks", &tasks, "--limit", "5", "--json"]);
    assert_eq!(report["tasks"], local["tasks"]);
    assert_eq!(report["tasks"][0]["items"], 5);
}

#[test]
fn outcomes_are_written_question_by_question() {
    let temp = TempDir::new().unwrap();
    let items = temp.path().join("items.jsonl");
    let report = json(&[
        "eval",
        &asset("tiny-opt"),
        "--tasks",
        "piqa,boolq",
        "--task-data",
        &fixture("zeroshot/local"),
        "--items",
        items.to_str().unwrap(),
        "--json",
    ]);
    let text = std::fs::read_to_string(items).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    for task in report["tasks"].as_array().unwrap() {
        let mine: Vec<_> = lines.iter().filter(|l| l["task"] == task["task"]).collect();
        let right = mine.iter().filter(|l| l["acc"] == true).count();
        assert_eq!(task["acc"].as_f64().unwrap(), right as f64 / mine.len() as f64);
    }
    // Every name in a list of tasks must be a task.
    let output = common::sparsellm(&["eval", &asset("tiny-opt"), "--tasks", "piqa,mmlu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown task mmlu"));
}

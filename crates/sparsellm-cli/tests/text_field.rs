//! `--text-field`, wherever rows are read.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, json, sparsellm};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

const NULL: &str = "rows skipped because their text is null: 1";

/// `FIELD.jsonl`: a story a row in that field, as pandas writes them, and a row without one.
fn rows(folder: &Path, field: &str) -> String {
    let text = fs::read_to_string(asset("stories/test.txt")).unwrap();
    let row = |story: &str| format!("{{\"n\": NaN, \"{field}\": {}}}\n", json!(story));
    let rows: String = text.lines().take(60).map(row).collect();
    let path = folder.join(format!("{field}.jsonl"));
    fs::write(&path, format!("{{\"n\": 1, \"{field}\": NaN}}\n{rows}")).unwrap();
    path.display().to_string()
}

#[test]
fn eval_reads_the_field_that_is_named() {
    let temp = TempDir::new().unwrap();
    let model = asset("tiny-llama");
    let text = rows(temp.path(), "text");
    let body = rows(temp.path(), "body");
    let eval = |data: &str, more: &[&str]| {
        let args =
            ["eval", &model, "--data", data, "--seq-len", "32", "--max-windows", "4", "--json"];
        sparsellm(&[&args, more].concat())
    };
    let refused = eval(&body, &[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let says = "it has \"n\", \"body\"; name the one that holds the text with --text-field";
    assert!(told.contains(says), "{told}");
    let figures = [eval(&text, &[]), eval(&body, &["--text-field", "body"])].map(|output| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(NULL), "{told}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["results"][0]["perplexity"].as_f64().unwrap()
    });
    assert_eq!(figures[0], figures[1]);
}

#[test]
fn runs_and_recipes_read_it_and_say_so() {
    let temp = TempDir::new().unwrap();
    let (model, out) = (asset("tiny-llama"), temp.path().join("out"));
    let out = out.to_str().unwrap();
    let body = rows(temp.path(), "body");
    let report = json(&[
        "prune",
        &model,
        "--output",
        out,
        "--method",
        "wanda",
        "--layers",
        "0..1",
        "--samples",
        "2",
        "--seq-len",
        "32",
        "--calibration",
        &body,
        "--eval",
        &body,
        "--max-windows",
        "2",
        "--text-field",
        "body",
        "--json",
    ]);
    assert!(report["perplexity"][0]["pruned"].as_f64().unwrap() > 1.0);
    let record = fs::read_to_string(Path::new(out).join("sparsellm.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["settings"]["calibration"]["text_field"], "body");

    let recipe = temp.path().join("recipe.toml");
    let text = format!(
        "[evaluate]\ndata = [\"body.jsonl\"]\ntext-field = \"body\"\nseq-len = 32\nmax-windows = 2\n\
         [[grid]]\nmodel = {model:?}\nmethod = \"wanda\"\nlayers = \"0..1\"\nsamples = 2\n\
         seq-len = 32\ncalibration = \"body.jsonl\"\ntext-field = \"body\"\n"
    );
    fs::write(&recipe, text).unwrap();
    let folder = temp.path().join("sweep");
    let sweep =
        sparsellm(&["sweep", recipe.to_str().unwrap(), "--output", folder.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&sweep.stderr).into_owned();
    assert!(sweep.status.success(), "{told}");
    // Told once for what is measured, and once for the calibration.
    assert_eq!(told.matches(NULL).count(), 2, "{told}");
    let results = fs::read_to_string(folder.join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["runs"][0]["settings"]["text-field"], "body");
    let alone = &report["perplexity"][0]["pruned"];
    assert_eq!(&results["runs"][0]["perplexity"][0]["perplexity"], alone);
}

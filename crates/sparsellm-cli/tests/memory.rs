//! Tests `prune --memory` and `--state`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, sparsellm};
use serde_json::Value;
use std::{fs, path::Path};
use tempfile::TempDir;

/// Prunes one layer on many tokens. Returns what was printed on stderr, the JSON report if there is
/// one, and the exit status.
fn prune(out: &Path, options: &[&str]) -> (String, Option<Value>, Option<i32>) {
    let (model, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let mut args = vec!["prune", &model, "--output", out.to_str().unwrap(), "--json"];
    args.extend(["--method", "sparsellm", "--layers", "0..1", "--epochs", "2"]);
    args.extend(["--calibration", &text, "--samples", "128", "--seq-len", "256"]);
    args.extend(options);
    let output = sparsellm(&args);
    let said = String::from_utf8(output.stderr).unwrap();
    (said, serde_json::from_slice(&output.stdout).ok(), output.status.code())
}

/// The memory, in bytes, that a run said it would need.
fn needed(said: &str) -> f64 {
    let words = said.split_once("needs up to ").unwrap().1;
    words.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1e9
}

#[test]
fn a_limit_is_kept_by_spilling_and_changes_no_byte() {
    let temp = TempDir::new().unwrap();
    let at = |name: &str| temp.path().join(name);
    let (said, free, _) = prune(&at("free"), &[]);
    let most = needed(&said);
    assert!(free.unwrap()["peak_rss_bytes"].as_f64().unwrap() <= most, "{said}");

    let limit = most - 20e6;
    let (said, kept, _) = prune(&at("kept"), &["--memory", &format!("{}MB", limit / 1e6)]);
    assert!(said.contains("part of it in temporary files"), "{said}");
    assert!(kept.unwrap()["peak_rss_bytes"].as_f64().unwrap() <= limit, "{said}");
    let weights = |name: &str| fs::read(at(name).join("model.safetensors")).unwrap();
    assert!(weights("free") == weights("kept"));
    // Nothing is left beside the two checkpoints.
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);

    let (said, _, status) = prune(&at("refused"), &["--memory", "50MB"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--memory") && said.contains("--samples"), "{said}");
    assert!(!at("refused").exists());
}

#[test]
fn bf16_takes_half_the_room_and_is_recorded() {
    let temp = TempDir::new().unwrap();
    let at = |name: &str| temp.path().join(name);
    let (f32_said, f32_report, _) = prune(&at("f32"), &[]);
    let (said, report, _) = prune(&at("bf16"), &["--state", "bf16"]);
    // bf16 saves 2 bytes for each value of z and s, on 128 x 256 tokens and for both first linears,
    // less the part that is converted to f32 at a time.
    assert!(needed(&said) < needed(&f32_said) - 10e6, "{said} {f32_said}");
    let error =
        |report: Option<Value>| report.unwrap()["layers"][0]["ffn_error"][1].as_f64().unwrap();
    let (exact, rounded) = (error(f32_report), error(report));
    assert!(exact != rounded && (rounded / exact - 1.0).abs() < 0.01, "{exact} {rounded}");
    let record = fs::read(at("bf16").join("sparsellm.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["settings"]["state"], "bf16");
}

#[test]
fn a_tuning_run_says_what_it_needs_and_refuses_less() {
    let temp = TempDir::new().unwrap();
    let (model, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let tune = |name: &str, options: &[&str]| {
        let out = temp.path().join(name).to_str().unwrap().to_string();
        let mut args = vec!["tune", &model, "--dense", &model, "--output", &out, "--json"];
        args.extend(["--calibration", &text, "--samples", "8", "--seq-len", "128"]);
        args.extend(["--tune-epochs", "1"]);
        args.extend(options);
        let output = sparsellm(&args);
        let report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        (String::from_utf8(output.stderr).unwrap(), report, output.status.code())
    };
    let (said, report, _) = tune("free", &["--state", "bf16"]);
    let peak = report.unwrap()["peak_rss_bytes"].as_f64().unwrap();
    assert!(peak <= needed(&said) + 5e6, "{peak} {said}");
    let record = fs::read(temp.path().join("free/sparsellm.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["tuning"]["state"], "bf16");
    let (said, _, status) = tune("refused", &["--memory", "50MB"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--memory") && !temp.path().join("refused").exists(), "{said}");
}

#[test]
fn sizes_are_read_with_their_units() {
    let temp = TempDir::new().unwrap();
    for bad in ["12XB", "GB", "", "-1GB", "1.2.3GB"] {
        let (said, _, status) = prune(&temp.path().join("bad"), &[&format!("--memory={bad}")]);
        assert_eq!(status, Some(2), "{bad}: {said}");
        assert!(said.contains("a size was expected"), "{bad}: {said}");
    }
}

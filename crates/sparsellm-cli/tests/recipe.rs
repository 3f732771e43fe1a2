//! Tests each part of `sparsellm-plus` alone.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, json};
use serde_json::Value;
use tempfile::TempDir;

/// The weights of tiny-llama's first two layers pruned with `options`.
fn pruned_with(options: &[&str]) -> (Value, Vec<u8>) {
    let temp = TempDir::new().unwrap();
    let (model, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let out = temp.path().join("out");
    let mut args = vec!["prune", &model, "--output", out.to_str().unwrap(), "--json"];
    args.extend(["--calibration", &text, "--samples", "4", "--seq-len", "64"]);
    args.extend(["--layers", "0..2"]);
    args.extend(options);
    let report = json(&args);
    assert!((report["sparsity"].as_f64().unwrap() - 0.7).abs() < 5e-3, "{options:?}");
    (report, std::fs::read(out.join("model.safetensors")).unwrap())
}

#[test]
fn each_part_of_the_recipe_can_be_had_alone_and_left_out_alone() {
    let parts: [(&[&str], &[&str]); 7] = [
        (&["--true-sequential"], &["--true-sequential=false"]),
        (&["--solver", "admm"], &["--solver", "obs"]),
        (&["--allocation", "measured"], &["--allocation", "uniform"]),
        (&["--sequential-refit"], &["--sequential-refit=false"]),
        (&["--target", "0.25"], &["--target", "layer"]),
        (&["--neuron-weights", "0.5"], &["--neuron-weights", "0"]),
        (&["--tune", "global"], &["--tune", "none"]),
    ];
    let (report, plus) = pruned_with(&[]);
    assert_eq!(report["method"], "sparsellm-plus", "the tool's default");
    let (_, published) = pruned_with(&["--method", "sparsellm", "--epochs", "2"]);
    let mut seen = vec![plus.clone(), published.clone()];
    for (on, off) in parts {
        for options in [[&["--method", "sparsellm", "--epochs", "2"], on].concat(), off.to_vec()] {
            let (_, weights) = pruned_with(&options);
            assert!(!seen.contains(&weights), "{options:?} changes nothing");
            seen.push(weights);
        }
    }
    // The two methods differ in nothing else.
    let on: Vec<&str> = parts.iter().flat_map(|(on, _)| *on).copied().collect();
    let (_, weights) =
        pruned_with(&[&["--method", "sparsellm", "--epochs", "2"], &on[..]].concat());
    assert!(weights == plus, "sparsellm with every part on is sparsellm-plus");
    let off: Vec<&str> = parts.iter().flat_map(|(_, off)| *off).copied().collect();
    let (_, weights) = pruned_with(&off);
    assert!(weights == published, "sparsellm-plus with every part off is sparsellm");
}

#[test]
fn refit_and_mask_scope_work_after_any_method() {
    let mut seen = Vec::new();
    for method in ["magnitude", "wanda", "sparsegpt", "sparsellm"] {
        let mut variants = vec![["--refit", "0"], ["--refit", "20"]];
        if method.starts_with("sparse") {
            variants.extend([["--mask-scope", "row"], ["--mask-scope", "matrix"]]);
        }
        for options in variants {
            let (_, weights) = pruned_with(&[&["--method", method], &options[..]].concat());
            assert!(!seen.contains(&weights), "{method} {options:?} changes nothing");
            seen.push(weights);
        }
    }
}

//! Tests `prune --profile`: the ledger's counts agree with the formulas of docs/performance.md.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, sparsellm};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn the_ledger_counts_what_the_formulas_say() {
    let config: Value =
        serde_json::from_slice(&std::fs::read(asset("tiny-llama/config.json")).unwrap()).unwrap();
    let size = |key: &str| config[key].as_f64().unwrap();
    let (d, ff, layers) =
        (size("hidden_size"), size("intermediate_size"), size("num_hidden_layers"));
    let tokens = 4.0 * 64.0;
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out");
    let output = sparsellm(&[
        "prune",
        &asset("tiny-llama"),
        "--output",
        out.to_str().unwrap(),
        "--method",
        "sparsegpt",
        "--calibration",
        &asset("stories/calibration.txt"),
        "--samples",
        "4",
        "--seq-len",
        "64",
        "--profile",
        "--json",
    ]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("of peak") && told.contains("matrix product reaches"), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let profile = &report["profile"];
    let of = |phase: &str, what: &str| profile["phases"][phase][what].as_f64().unwrap();
    // One triangle of XᵀX for each of the four inputs, and two factors of d³/3 flops for each.
    assert_eq!(of("gram", "flops"), layers * tokens * (3.0 * d * (d + 1.0) + ff * (ff + 1.0)));
    let cubes = (3.0 * d.powi(3) + ff.powi(3)) * 2.0 / 3.0;
    assert!((of("factor", "flops") / (layers * cubes) - 1.0).abs() < 1e-3);
    let seconds: f64 = ["read", "forward", "gram", "factor", "solve", "write", "rest"]
        .iter()
        .map(|phase| of(phase, "seconds"))
        .sum();
    let all = profile["seconds"].as_f64().unwrap();
    assert!((seconds - all).abs() < 1e-3 && all < report["seconds"].as_f64().unwrap());
    for phase in ["weights", "a", "z, s"] {
        assert_eq!((of(phase, "seconds"), of(phase, "flops")), (0.0, 0.0), "{phase}");
    }
    assert!(profile["gemm_peak_flops"].as_f64().unwrap() > 1e8);
}

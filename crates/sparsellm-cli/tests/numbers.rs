//! Tests models and texts whose Hessians are ill-conditioned. No run stops, and the log and the
//! report name every linear that was damped more than asked for.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, family, npy, sparsellm};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{fs, path::Path};
use tempfile::TempDir;

/// Prunes `model`, and returns what was printed on stderr and the JSON report.
fn prune(model: &str, out: &Path, options: &[&str]) -> (String, Value) {
    let mut args = vec!["prune", model, "--output", out.to_str().unwrap(), "--json"];
    args.extend(options);
    let output = sparsellm(&args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{options:?}: {said}");
    (said, serde_json::from_slice(&output.stdout).unwrap())
}

/// The number of linears that were damped more than asked for, according to the report.
fn raised(report: &Value) -> usize {
    let layers = report["layers"].as_array().unwrap().iter();
    let linears = layers.flat_map(|l| l["linears"].as_object().unwrap().values());
    linears.filter(|l| l["raised_damping"].as_f64().is_some_and(|d| d > 0.0)).count()
}

#[test]
fn few_tokens_and_no_damping_are_told_of_and_survived() {
    let temp = TempDir::new().unwrap();
    let text = asset("stories/calibration.txt");
    for model in ["tiny-llama", "tiny-opt"] {
        for method in ["sparsegpt", "sparsellm", "sparsellm-plus"] {
            let out = temp.path().join(format!("{model}-{method}"));
            let options = ["--method", method, "--calibration", &text, "--samples", "1"];
            let more = ["--seq-len", "2", "--damping", "0", "--layers", "0..2"];
            let (said, report) = prune(&asset(model), &out, &[&options[..], &more].concat());
            assert!(said.contains("warning: layer 0 self_attn.q_proj: the Hessian is singular; damping raised from 0 to"), "{said}");
            // The inputs of all linears, in both layers, have only two tokens.
            let linears = if model == "tiny-llama" { 14 } else { 12 };
            assert_eq!(raised(&report), linears, "{model} {method}: {said}");
            let html = fs::read_to_string(out.join("report.html")).unwrap();
            assert!(html.contains("raised damping"), "{model} {method}");
        }
    }
}

/// A copy of a half-precision model whose linears have weights near the largest number of that
/// type.
fn large_weights(to: &Path) -> String {
    let from = family("llama-f16");
    fs::create_dir(to).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let path = to.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    for (name, info) in metadata.tensors() {
        if name.contains("proj") {
            let (start, end) = (8 + header + info.data_offsets.0, 8 + header + info.data_offsets.1);
            for half in bytes[start..end].chunks_exact_mut(2) {
                // Set the value to ±60000, with the sign that it had.
                half[0] = 0x53;
                half[1] = half[1] & 0x80 | 0x7b;
            }
        }
    }
    fs::write(path, bytes).unwrap();
    to.display().to_string()
}

#[test]
fn weights_past_half_precision_are_damped_until_they_fit() {
    let temp = TempDir::new().unwrap();
    let model = large_weights(&temp.path().join("model"));
    let ids: Vec<u8> = (0..256i32).flat_map(|i| (i * i % 60).to_le_bytes()).collect();
    let tokens = temp.path().join("ids.npy").display().to_string();
    fs::write(&tokens, npy("<i4", "(256,)", &ids)).unwrap();
    for method in ["sparsegpt", "sparsellm", "sparsellm-plus"] {
        let out = temp.path().join(method);
        let options = ["--method", method, "--calibration", &tokens, "--sparsity", "0.5"];
        let more = ["--samples", "8", "--seq-len", "32"];
        let (said, report) = prune(&model, &out, &[&options[..], &more].concat());
        assert!(
            said.contains("too large to be written; damping raised from 0.01 to 0.1"),
            "{said}"
        );
        assert!(raised(&report) > 0, "{said}");
        // The checkpoint can be read, so none of its weights is infinite.
        let evaluated = sparsellm(&["inspect", out.to_str().unwrap()]);
        assert!(evaluated.status.success(), "{}", String::from_utf8_lossy(&evaluated.stderr));
    }
}

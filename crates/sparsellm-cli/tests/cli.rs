//! Tests the command end to end, as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{asset, json, sparsellm};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

fn family(name: &str) -> String {
    common::family(name).display().to_string()
}

/// Writes a .npy file of `n` int64 token ids below `vocabulary`, and returns its path.
fn tokens(folder: &Path, n: usize, vocabulary: i64) -> String {
    let (mut state, mut ids) = (1i64, Vec::new());
    for _ in 0..n {
        state = (state * 1103 + 12345) % 65536;
        ids.extend((state % vocabulary).to_le_bytes());
    }
    let path = folder.join("tokens.npy");
    std::fs::write(&path, common::npy("<i8", &format!("({n},)"), &ids)).unwrap();
    path.display().to_string()
}

/// Calls `f` for every linear of the decoder layers, with its name, its shape, and whether each of
/// its elements is zero.
fn for_each_linear(folder: &Path, mut f: impl FnMut(&str, &[usize], Vec<bool>)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in file.tensors() {
            let size = tensor.dtype().bitsize() / 8;
            let zero = tensor.data().chunks_exact(size).map(|e| e.iter().all(|b| b & 0x7f == 0));
            if name.contains("layers.") && tensor.shape().len() == 2 {
                f(&name, tensor.shape(), zero.collect());
            }
        }
    }
}

#[test]
fn every_method_prunes_to_the_target_and_the_result_evaluates() {
    let temp = TempDir::new().unwrap();
    let stories = asset("stories/calibration.txt");
    let mut perplexities = Vec::new();
    for method in ["magnitude", "wanda", "sparsegpt", "sparsellm", "sparsellm-plus"] {
        let out = temp.path().join(method);
        let out = out.to_str().unwrap();
        let report = json(&[
            "prune",
            &asset("tiny-llama"),
            "--output",
            out,
            "--method",
            method,
            "--sparsity",
            "0.7",
            "--calibration",
            &stories,
            "--samples",
            "8",
            "--seq-len",
            "128",
            "--epochs",
            "2",
            "--json",
        ]);
        assert_eq!(report["method"], method);
        assert!((report["sparsity"].as_f64().unwrap() - 0.7).abs() < 5e-3);
        assert!(report["peak_rss_bytes"].as_u64().unwrap() > 0);
        let layers = report["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 6);
        for (i, layer) in layers.iter().enumerate() {
            assert_eq!(layer["index"], i);
            assert_eq!(layer["linears"].as_object().unwrap().len(), 7);
            let errors = layer["ffn_error"].as_array().unwrap();
            if method.starts_with("sparsellm") {
                let kept = layer["kept_epoch"].as_u64().unwrap() as usize;
                let best = errors[kept - 1].as_f64().unwrap();
                assert!(errors.iter().all(|e| e.as_f64().unwrap() >= best));
            } else {
                assert!(errors.is_empty());
            }
        }
        let inspected = json(&["inspect", out, "--json"]);
        assert!((inspected["sparsity"].as_f64().unwrap() - 0.7).abs() < 5e-3);
        assert_eq!(inspected["architecture"], "LlamaForCausalLM");
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "sparsellm.json"] {
            assert!(Path::new(out).join(file).is_file(), "{file}");
        }
        let test = asset("stories/test.txt");
        let evaluated = json(&[
            "eval",
            out,
            "--data",
            &test,
            "--seq-len",
            "128",
            "--max-windows",
            "20",
            "--json",
        ]);
        let result = &evaluated["results"][0];
        assert_eq!((result["windows"].as_u64(), result["tokens"].as_u64()), (Some(20), Some(2560)));
        perplexities.push(result["perplexity"].as_f64().unwrap());
    }
    assert!(perplexities.is_sorted_by(|a, b| a > b), "{perplexities:?}");
}

#[test]
fn perplexity_before_and_after_is_what_eval_says() {
    let temp = TempDir::new().unwrap();
    let (out, model, test) =
        (temp.path().join("out"), asset("tiny-opt"), asset("stories/test.txt"));
    let (out, measured) = (out.to_str().unwrap(), ["--seq-len", "128", "--max-windows", "4"]);
    let mut args = vec!["prune", &model, "--output", out, "--method", "magnitude", "--json"];
    args.extend(measured);
    args.extend(["--eval", &test]);
    let report = &json(&args)["perplexity"][0];
    for (folder, key) in [(model.as_str(), "dense"), (out, "pruned")] {
        let mut args = vec!["eval", folder, "--data", &test, "--json"];
        args.extend(measured);
        assert_eq!(json(&args)["results"][0]["perplexity"], report[key], "{key}");
    }
    assert!(report["pruned"].as_f64().unwrap() > report["dense"].as_f64().unwrap());
}

#[test]
fn patterns_hold_in_every_group_of_every_family() {
    let temp = TempDir::new().unwrap();
    let cases = [
        ("llama3", "2:4", "sparsegpt"),
        ("llama-bf16-sharded", "3:4", "wanda"),
        ("llama-f16", "4:8", "magnitude"),
        ("qwen2", "2:4", "sparsellm"),
        ("opt-125m-style", "2:4", "sparsellm"),
        ("opt-350m-style-bin", "2:4", "sparsegpt"),
        ("llama1", "3:4", "sparsellm-plus"),
        ("opt-350m-style", "2:4", "sparsellm-plus"),
        ("opt-125m-style-bin-sharded", "2:4", "wanda"),
    ];
    for (name, pattern, method) in cases {
        let out = temp.path().join(name);
        let npy = tokens(temp.path(), 128, 60);
        json(&[
            "prune",
            &family(name),
            "--output",
            out.to_str().unwrap(),
            "--pattern",
            pattern,
            "--method",
            method,
            "--calibration",
            &npy,
            "--samples",
            "8",
            "--seq-len",
            "16",
            "--json",
        ]);
        let (n, m) = pattern.split_once(':').unwrap();
        let (n, m): (usize, usize) = (n.parse().unwrap(), m.parse().unwrap());
        let mut linears = 0;
        for_each_linear(&out, |tensor, shape, zero| {
            linears += 1;
            assert_eq!(zero.len(), shape[0] * shape[1]);
            for group in zero.chunks(m) {
                assert!(group.iter().filter(|z| **z).count() >= n, "{name} {tensor}");
            }
        });
        assert!(linears >= 12, "{name}: {linears}");
        let inspected = json(&["inspect", out.to_str().unwrap(), "--json"]);
        let held = inspected["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|t| t["patterns"].as_array().unwrap().contains(&Value::from(pattern)));
        assert_eq!(held.count(), linears, "{name}");
    }
}

#[test]
fn only_the_layers_asked_for_change() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out");
    json(&[
        "prune",
        &asset("tiny-llama"),
        "--output",
        out.to_str().unwrap(),
        "--method",
        "magnitude",
        "--layers",
        "2..4",
        "--json",
    ]);
    for_each_linear(&out, |name, _, zero| {
        let pruned = name.contains("layers.2.") || name.contains("layers.3.");
        let share = zero.iter().filter(|z| **z).count() as f64 / zero.len() as f64;
        assert_eq!(share > 0.5, pruned, "{name}: {share}");
    });
}

/// Copies a fixture so that a test can damage it.
fn damaged(temp: &TempDir, name: &str, damage: impl FnOnce(&Path)) -> String {
    let to = temp.path().join("model");
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(family(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    damage(&to);
    to.display().to_string()
}

/// Sets a key in a folder's config.json.
fn configure(folder: &Path, key: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

/// Sets an element of the first tensor whose name contains `part` to NaN.
fn poison(folder: &Path, part: &str) {
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = metadata.tensors();
    let (_, info) = tensors.iter().find(|(name, _)| name.contains(part)).unwrap();
    let at = 8 + header + info.data_offsets.0;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// Prunes `model`. The run must fail with `status`, say `what`, and write no output.
fn refused(temp: &TempDir, model: &str, extra: &[&str], status: i32, what: &str) {
    let npy = tokens(temp.path(), 128, 60);
    let before: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    let out = temp.path().join("refused");
    let mut args = vec!["prune", model, "--output", out.to_str().unwrap(), "--method", "sparsegpt"];
    if !extra.contains(&"--calibration") {
        args.extend(["--calibration", &npy]);
    }
    args.extend(["--samples", "4", "--seq-len", "16"]);
    args.extend(extra);
    let output = sparsellm(&args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{extra:?}: {stderr}");
    assert!(stderr.contains(what), "{extra:?}: {stderr:?} does not say {what:?}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(output.stdout.is_empty());
    // Finished layers stay, and are told of; nothing else does.
    let kept = usize::from(
        stderr.contains("finished layers: 1, which stay beside the output until --force"),
    );
    assert!(!stderr.contains("--resume"), "{stderr}");
    let left = std::fs::read_dir(temp.path()).unwrap().count();
    assert_eq!(left, before.len() + kept, "{what}: left files");
}

#[test]
fn bad_settings_are_refused() {
    let model = family("llama1");
    let cases: &[(&[&str], &str)] = &[
        (&["--sparsity", "1"], "outside [0, 1)"),
        (&["--sparsity=-0.1"], "outside [0, 1)"),
        (&["--sparsity", "nan"], "outside [0, 1)"),
        (&["--pattern", "5:4"], "N must not exceed M"),
        (&["--pattern", "2:5"], "not a multiple of"),
        (&["--pattern", "2"], "not N:M"),
        (&["--pattern", "2:4", "--sparsity", "0.5"], "cannot be used with"),
        (&["--layers", "1..9"], "decoder layers 0..2"),
        (&["--layers", "x"], "A..B"),
        (&["--layers", "1..1"], "decoder layers 0..2"),
        (&["--bits", "1"], "--bits"),
        (&["--alpha", "0"], "--alpha"),
        (&["--epochs", "0"], "--epochs"),
        (&["--damping", "nan"], "--damping"),
        (&["--threads", "0"], "at least 1"),
        (&["--solver", "sgd"], "obs or admm"),
        (&["--mask-scope", "layer"], "block, row or matrix"),
        (&["--solver", "admm", "--mask-scope", "block"], "choose row or matrix"),
        (&["--solver", "admm", "--bits", "4"], "--solver obs"),
        (&["--refit", "10", "--bits", "4"], "--refit 0"),
        (&["--allocation", "fair"], "uniform, owl or a number"),
        (&["--allocation", "0.6"], "--allocation must be"),
        (&["--target", "near"], "layer, dense or a number"),
        (&["--target", "1.5"], "--target must be"),
        (&["--target", "dense"], "belong to SparseLLM"),
        (&["--sequential-refit"], "belong to SparseLLM"),
        (&["--neuron-weights", "nan"], "--neuron-weights must be"),
        (&["--neuron-weights", "0.5"], "belong to SparseLLM"),
    ];
    for (extra, what) in cases {
        let temp = TempDir::new().unwrap();
        refused(&temp, &model, extra, 2, what);
    }
}

#[test]
fn bad_models_are_refused() {
    let temp = || TempDir::new().unwrap();
    let t = temp();
    refused(&t, "no/such/folder", &[], 1, "no such file or folder");
    let t = temp();
    std::fs::create_dir(t.path().join("empty")).unwrap();
    let empty = t.path().join("empty").display().to_string();
    refused(&t, &empty, &[], 1, "config.json; give a Hugging Face checkpoint folder");
    for (file, what) in [
        ("model-00001-of-00002.safetensors", "their index is missing"),
        ("a.Q4_K_M.gguf", "it holds .gguf files"),
        ("adapter_config.json", "merge that into its base model"),
    ] {
        std::fs::write(t.path().join("empty").join(file), "{}").unwrap();
        refused(&t, &empty, &[], 1, what);
    }
    type Damage = (fn(&Path), &'static str);
    let cases: &[Damage] = &[
        (|m| std::fs::remove_file(m.join("model.safetensors")).unwrap(), "no weights"),
        (|m| configure(m, "model_type", "xyz".into()), "model_type xyz"),
        (|m| configure(m, "num_hidden_layers", 3.into()), "model.layers.2."),
        (|m| configure(m, "intermediate_size", 48.into()), "has shape"),
        (|m| configure(m, "hidden_size", "big".into()), "hidden_size"),
        (|m| configure(m, "hidden_size", (1u64 << 62).into()), "hidden_size"),
        (|m| configure(m, "num_hidden_layers", 2_000_000_000.into()), "only"),
        (|m| std::fs::write(m.join("config.json"), "{").unwrap(), "not valid JSON"),
        (
            |m| {
                let path = m.join("model.safetensors");
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
            },
            "truncated",
        ),
        (|m| poison(m, "layers.1.mlp.up_proj"), "NaN"),
        (|m| poison(m, "embed_tokens"), "NaN"),
    ];
    for (damage, what) in cases {
        let t = temp();
        let model = damaged(&t, "llama1", damage);
        refused(&t, &model, &[], 1, what);
    }
    let t = temp();
    let model = damaged(&t, "llama-bf16-sharded", |m| {
        let path = m.join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("model-00001", "../model-00001")).unwrap();
    });
    refused(&t, &model, &[], 1, "not a plain file name");
}

#[test]
fn bad_texts_are_refused() {
    let model = family("llama1");
    let t = TempDir::new().unwrap();
    refused(&t, &model, &["--samples", "9"], 2, "cannot be used multiple times");
    let t = TempDir::new().unwrap();
    let text = t.path().join("a.txt");
    std::fs::write(&text, "word").unwrap();
    let text = text.display().to_string();
    refused(&t, &model, &["--calibration", &text], 1, "no tokenizer");
    refused(&t, &asset("tiny-llama"), &["--calibration", &text], 1, "too few");
    refused(&t, &model, &["--calibration", "missing.txt"], 1, "missing.txt");
    refused(&t, &model, &["--calibration", "a.pdf"], 1, "a.pdf");
    let npy = tokens(t.path(), 10, 60);
    let output = sparsellm(&["eval", &model, "--data", &npy, "--seq-len", "16"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fewer than one window"));
    let npy = tokens(t.path(), 100, 70_000);
    let output = sparsellm(&["eval", &model, "--data", &npy, "--seq-len", "16"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("vocabulary"));
}

#[test]
fn outputs_are_never_overwritten_by_accident() {
    let t = TempDir::new().unwrap();
    let out = t.path().join("out");
    let prune = |extra: &[&str]| {
        let model = family("llama1");
        let mut args = vec!["prune", &model, "--output", out.to_str().unwrap()];
        args.extend(["--method", "magnitude"]);
        args.extend(extra);
        sparsellm(&args)
    };
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "years of work").unwrap();
    assert_eq!(prune(&[]).status.code(), Some(1));
    assert_eq!(prune(&["--force"]).status.code(), Some(1));
    assert!(out.join("thesis.tex").is_file());
    std::fs::remove_file(out.join("thesis.tex")).unwrap();
    assert!(prune(&["--force"]).status.success());
    let again = prune(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));
    assert!(prune(&["--force"]).status.success());
    assert_eq!(std::fs::read_dir(t.path()).unwrap().count(), 1);
    // The output folder must not be the input folder.
    let model = out.to_str().unwrap();
    let output =
        sparsellm(&["prune", model, "--output", model, "--method", "magnitude", "--force"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out.join("model.safetensors").is_file());
}

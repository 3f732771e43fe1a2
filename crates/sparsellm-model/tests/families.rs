//! Every model family gives transformers' logits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm_model::{KeyValueCache, Model, Positions};
use sparsellm_tensor::{Matrix, matmul_nt, softcap};
use sparsellm_testing::{Case, fixture};
use tempfile::TempDir;

/// The logits of the last hidden states.
fn head(model: &Model, hidden: Matrix) -> Matrix {
    let hidden = model.finish(hidden).unwrap();
    let head = model.head_rows(0..model.shape().vocabulary).unwrap();
    let mut logits = matmul_nt(hidden.view(), head.view());
    if let Some(cap) = model.logit_softcap() {
        softcap(&mut logits.data, cap);
    }
    logits
}

fn logits(model: &Model, tokens: &[u32], seq_len: usize) -> Matrix {
    let mut hidden = model.embed(tokens, seq_len).unwrap();
    for index in 0..model.shape().layers {
        let positions = Positions::segments(seq_len);
        model.block(index).unwrap().forward(&mut hidden, positions, None, |_, _| {});
    }
    head(model, hidden)
}

/// The same with a key/value cache: a prompt first, then token by token.
fn logits_one_by_one(model: &Model, tokens: &[u32], prompt: usize) -> Matrix {
    let blocks: Vec<_> = (0..model.shape().layers).map(|i| model.block(i).unwrap()).collect();
    let mut caches = vec![KeyValueCache::default(); blocks.len()];
    let mut all = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let next = if at == 0 { prompt } else { 1 };
        let positions = Positions::after(at, next);
        let mut hidden = model.embed_at(&tokens[at..at + next], positions).unwrap();
        for (block, cache) in blocks.iter().zip(&mut caches) {
            block.forward(&mut hidden, positions, Some(cache), |_, _| {});
        }
        all.extend(head(model, hidden).data);
        at += next;
    }
    Matrix::new(tokens.len(), model.shape().vocabulary, all)
}

fn close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0f32, f32::max);
    assert!(worst <= 1e-4 * scale, "{what}: off by {worst} of {scale}");
    assert!(got.iter().all(|v| v.is_finite()), "{what}");
}

/// A fixture: its model, its tokens in segments of a length, and its logits.
fn load(name: &str) -> (Model, Vec<u32>, usize, Matrix) {
    let folder = fixture(&format!("families/{name}"));
    let case = Case::load(&folder.join("expected.safetensors"));
    let tokens = case.vector("input_ids").iter().map(|&v| v as u32).collect();
    (Model::open(&folder).unwrap(), tokens, case.shape("input_ids")[1], case.matrix("logits"))
}

fn agrees_on_segments(name: &str) {
    let (model, tokens, seq_len, want) = load(name);
    close(&logits(&model, &tokens, seq_len).data, &want.data, name);
}

fn agrees(name: &str) {
    agrees_on_segments(name);
    let (model, tokens, seq_len, want) = load(name);
    for prompt in [1, 7, seq_len] {
        let got = logits_one_by_one(&model, &tokens[..seq_len], prompt);
        close(&got.data, &want.data[..got.data.len()], &format!("{name}, cached from {prompt}"));
    }
}

/// Earlier keys keep the frequencies of the text when it was shorter, in transformers' cache, too:
/// token by token, a text that outgrows the original positions has other logits.
#[test]
fn ropes_that_depend_on_the_length() {
    for name in ["llama-dynamic-rope", "llama-longrope", "phi3-longrope", "phi3-old-rope"] {
        agrees_on_segments(name);
    }
}

/// A bare decoder and a classifier have hidden states, and say that they have no logits.
#[test]
fn models_without_a_head() {
    for name in ["llama-decoder", "llama-classifier"] {
        let (model, tokens, seq_len, want) = load(name);
        let mut hidden = model.embed(&tokens, seq_len).unwrap();
        for index in 0..model.shape().layers {
            let positions = Positions::segments(seq_len);
            model.block(index).unwrap().forward(&mut hidden, positions, None, |_, _| {});
        }
        close(&model.finish(hidden).unwrap().data, &want.data, name);
        let error = model.head_rows(0..1).unwrap_err().to_string();
        assert!(error.contains("lm_head.weight"), "{error}");
    }
}

/// A copy of a fixture in which one file's text is changed; what is in place of `from` is as long.
fn changed(name: &str, file: &str, from: &str, to: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(&format!("families/{name}"))).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(format!("{to:0$}", from.len()).as_bytes());
    std::fs::write(path, bytes).unwrap();
    folder
}

/// transformers 5 calls GPT-NeoX's head so in memory, and reads it from a file under both names.
#[test]
fn gpt_neox_with_a_head_of_another_name() {
    let (_, tokens, seq_len, want) = load("gpt-neox");
    let (from, to) = ("\"embed_out.weight\":", "\"lm_head.weight\":");
    let folder = changed("gpt-neox", "model.safetensors", from, to);
    let model = Model::open(folder.path()).unwrap();
    close(&logits(&model, &tokens, seq_len).data, &want.data, to);
}

/// Python writes numbers that JSON does not have, and reads them.
#[test]
fn a_configuration_with_infinity() {
    let (_, tokens, seq_len, want) = load("llama1");
    let changed = |from, to| changed("llama1", "config.json", from, to);
    let folder = changed("\"initializer_range\": 0.02", "\"init\": -Infinity");
    let model = Model::open(folder.path()).unwrap();
    close(&logits(&model, &tokens, seq_len).data, &want.data, "llama1");
    let folder = changed("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": NaN");
    let error = Model::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("\"rms_norm_eps\" is \"NaN\""), "{error}");
}

macro_rules! families {
    ($($test:ident: $folder:literal;)*) => { $(#[test] fn $test() { agrees($folder) })* };
}

families! {
    llama1: "llama1";
    llama3: "llama3";
    llama3_old_config: "llama3-old-config";
    llama_linear_rope: "llama-linear-rope";
    llama_linear_rope_old_config: "llama-linear-rope-old-config";
    llama_bias: "llama-bias";
    llama_f16: "llama-f16";
    llama_bf16_sharded: "llama-bf16-sharded";
    llama_yarn_rope: "llama-yarn-rope";
    llama_both_ropes: "llama-both-ropes";
    llama_early_config: "llama-early-config";
    llama_own_head: "llama-own-head";
    llama_only_head: "llama-only-head";
    smollm2: "smollm2";
    mistral: "mistral";
    mistral_absent_fields: "mistral-absent-fields";
    mistral_layer_types: "mistral-layer-types";
    ministral: "ministral";
    qwen2: "qwen2";
    qwen2_layer_types: "qwen2-layer-types";
    qwen2_max_window_layers: "qwen2-max-window-layers";
    qwen3: "qwen3";
    qwen3_old_config: "qwen3-old-config";
    qwen3_layer_types: "qwen3-layer-types";
    qwen3_absent_fields: "qwen3-absent-fields";
    gemma2: "gemma2";
    gemma2_old_config: "gemma2-old-config";
    gpt_neox: "gpt-neox";
    gpt_neox_serial: "gpt-neox-serial";
    gpt_neox_old_config: "gpt-neox-old-config";
    phi3: "phi3";
    opt_125m: "opt-125m-style";
    opt_350m: "opt-350m-style";
    opt_no_bias: "opt-no-bias";
    opt_gelu: "opt-gelu";
    opt_125m_bin: "opt-125m-style-bin";
    opt_125m_bin_sharded: "opt-125m-style-bin-sharded";
    opt_350m_bin: "opt-350m-style-bin";
    opt_no_bias_bin: "opt-no-bias-bin";
    opt_gelu_bin: "opt-gelu-bin";
}

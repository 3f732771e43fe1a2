//! Every model family gives transformers' logits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Case, fixture};
use sparsellm::{
    Model,
    linalg::{Matrix, matmul_nt},
};

fn logits(model: &Model, tokens: &[u32], seq_len: usize) -> Matrix {
    let mut hidden = model.embed(tokens, seq_len).unwrap();
    for index in 0..model.shape().layers {
        model.layer(index).unwrap().forward(&mut hidden, seq_len, |_, _| {});
    }
    let hidden = model.family.finish(&model.checkpoint, hidden).unwrap();
    let head = model.checkpoint.matrix(model.family.head()).unwrap();
    matmul_nt(hidden.view(), head.view())
}

fn agrees(name: &str) {
    let folder = fixture(&format!("families/{name}"));
    let model = Model::open(&folder).unwrap();
    let case = Case::load(&folder.join("expected.safetensors"));
    let tokens: Vec<u32> = case.vector("input_ids").iter().map(|&v| v as u32).collect();
    let seq_len = case.shape("input_ids")[1];
    let got = logits(&model, &tokens, seq_len);
    let want = case.matrix("logits");
    assert_eq!(got.data.len(), want.data.len());
    let scale = want.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst =
        got.data.iter().zip(&want.data).map(|(g, w)| (g - w).abs()).fold(0f32, |m, v| m.max(v));
    assert!(worst <= 1e-4 * scale, "{name}: off by {worst} of {scale}");
    assert!(got.data.iter().all(|v| v.is_finite()));
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
    smollm2: "smollm2";
    mistral: "mistral";
    qwen2: "qwen2";
    qwen3: "qwen3";
    qwen3_old_config: "qwen3-old-config";
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

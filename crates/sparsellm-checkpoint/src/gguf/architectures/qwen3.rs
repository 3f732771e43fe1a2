//! Qwen3: a norm on every query and key head, and no biases.

use super::{
    architecture::{
        Architecture,
        Size::{Head, Hidden, Intermediate, Keys, Queries},
        Tensor,
    },
    llama,
};
use crate::{Dtype, gguf::settings::Settings};
use serde_json::{Value, json};
use sparsellm_base::Result;

pub(super) const QWEN3: Architecture = Architecture {
    name: "qwen3",
    class: ("Qwen3ForCausalLM", "qwen3"),
    dtype: Dtype::Bf16,
    outer: llama::OUTER,
    layers: "model.layers.",
    layer: &[
        Tensor::new("attn_norm.weight", "input_layernorm.weight", &[Hidden]),
        Tensor::new("attn_q.weight", "self_attn.q_proj.weight", &[Queries, Hidden]),
        Tensor::new("attn_q_norm.weight", "self_attn.q_norm.weight", &[Head]),
        Tensor::new("attn_k.weight", "self_attn.k_proj.weight", &[Keys, Hidden]),
        Tensor::new("attn_k_norm.weight", "self_attn.k_norm.weight", &[Head]),
        Tensor::new("attn_v.weight", "self_attn.v_proj.weight", &[Keys, Hidden]),
        Tensor::new("attn_output.weight", "self_attn.o_proj.weight", &[Hidden, Queries]),
        Tensor::new("ffn_norm.weight", "post_attention_layernorm.weight", &[Hidden]),
        Tensor::new("ffn_gate.weight", "mlp.gate_proj.weight", &[Intermediate, Hidden]),
        Tensor::new("ffn_up.weight", "mlp.up_proj.weight", &[Intermediate, Hidden]),
        Tensor::new("ffn_down.weight", "mlp.down_proj.weight", &[Hidden, Intermediate]),
    ],
    config,
};

fn config(settings: &Settings<'_>) -> Result<Value> {
    settings.with_rotary_fields(json!({
        "attention_bias": false,
        "hidden_act": "silu",
        "use_sliding_window": false,
    }))
}

//! LLaMA 1 to 3.2, and what transformers calls Mistral, SmolLM2 and others: llama.cpp's
//! rotary positions rotate neighbours, so its converter interleaves the halves of each head.

use super::architecture::{
    Architecture,
    Change::{InterleaveKeys, InterleaveQueries},
    Size::{Hidden, Intermediate, Keys, Queries, Vocabulary},
    Tensor,
};
use crate::{Dtype, gguf::settings::Settings};
use serde_json::{Value, json};
use sparsellm_base::Result;

pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    class: ("LlamaForCausalLM", "llama"),
    dtype: Dtype::F16,
    outer: OUTER,
    layers: "model.layers.",
    layer: LAYER,
    config,
};

pub(super) const OUTER: &[Tensor] = &[
    Tensor::new("token_embd.weight", "model.embed_tokens.weight", &[Vocabulary, Hidden]),
    Tensor::new("output_norm.weight", "model.norm.weight", &[Hidden]),
    Tensor::new("output.weight", "lm_head.weight", &[Vocabulary, Hidden]).optional(),
];

pub(super) const LAYER: &[Tensor] = &[
    Tensor::new("attn_norm.weight", "input_layernorm.weight", &[Hidden]),
    Tensor::new("attn_q.weight", "self_attn.q_proj.weight", &[Queries, Hidden])
        .with(InterleaveQueries),
    Tensor::new("attn_k.weight", "self_attn.k_proj.weight", &[Keys, Hidden]).with(InterleaveKeys),
    Tensor::new("attn_v.weight", "self_attn.v_proj.weight", &[Keys, Hidden]),
    Tensor::new("attn_output.weight", "self_attn.o_proj.weight", &[Hidden, Queries]),
    Tensor::new("ffn_norm.weight", "post_attention_layernorm.weight", &[Hidden]),
    Tensor::new("ffn_gate.weight", "mlp.gate_proj.weight", &[Intermediate, Hidden]),
    Tensor::new("ffn_up.weight", "mlp.up_proj.weight", &[Intermediate, Hidden]),
    Tensor::new("ffn_down.weight", "mlp.down_proj.weight", &[Hidden, Intermediate]),
    // `attention_bias` and `mlp_bias`.
    Tensor::new("attn_q.bias", "self_attn.q_proj.bias", &[Queries])
        .with(InterleaveQueries)
        .optional(),
    Tensor::new("attn_k.bias", "self_attn.k_proj.bias", &[Keys]).with(InterleaveKeys).optional(),
    Tensor::new("attn_v.bias", "self_attn.v_proj.bias", &[Keys]).optional(),
    Tensor::new("attn_output.bias", "self_attn.o_proj.bias", &[Hidden]).optional(),
    Tensor::new("ffn_gate.bias", "mlp.gate_proj.bias", &[Intermediate]).optional(),
    Tensor::new("ffn_up.bias", "mlp.up_proj.bias", &[Intermediate]).optional(),
    Tensor::new("ffn_down.bias", "mlp.down_proj.bias", &[Hidden]).optional(),
];

fn config(settings: &Settings<'_>) -> Result<Value> {
    settings.with_rotary_fields(json!({
        "attention_bias": settings.first_layer_has("self_attn.q_proj.bias"),
        "hidden_act": "silu",
        "mlp_bias": settings.first_layer_has("mlp.gate_proj.bias"),
    }))
}

//! Gemma 2: norms before and after each half, whose weights llama.cpp stores with the 1 that
//! Gemma adds to them; the head is always the embedding.

use super::architecture::{
    Architecture,
    Change::AddOne,
    Size::{Hidden, Intermediate, Keys, Queries, Vocabulary},
    Tensor,
};
use crate::{Dtype, gguf::settings::Settings};
use serde_json::{Value, json};
use sparsellm_base::Result;

pub(super) const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    class: ("Gemma2ForCausalLM", "gemma2"),
    dtype: Dtype::Bf16,
    outer: &[
        Tensor::new("token_embd.weight", "model.embed_tokens.weight", &[Vocabulary, Hidden]),
        Tensor::new("output_norm.weight", "model.norm.weight", &[Hidden]).with(AddOne),
    ],
    layers: "model.layers.",
    layer: &[
        Tensor::new("attn_norm.weight", "input_layernorm.weight", &[Hidden]).with(AddOne),
        Tensor::new("attn_q.weight", "self_attn.q_proj.weight", &[Queries, Hidden]),
        Tensor::new("attn_k.weight", "self_attn.k_proj.weight", &[Keys, Hidden]),
        Tensor::new("attn_v.weight", "self_attn.v_proj.weight", &[Keys, Hidden]),
        Tensor::new("attn_output.weight", "self_attn.o_proj.weight", &[Hidden, Queries]),
        Tensor::new("post_attention_norm.weight", "post_attention_layernorm.weight", &[Hidden])
            .with(AddOne),
        Tensor::new("ffn_norm.weight", "pre_feedforward_layernorm.weight", &[Hidden]).with(AddOne),
        Tensor::new("ffn_gate.weight", "mlp.gate_proj.weight", &[Intermediate, Hidden]),
        Tensor::new("ffn_up.weight", "mlp.up_proj.weight", &[Intermediate, Hidden]),
        Tensor::new("ffn_down.weight", "mlp.down_proj.weight", &[Hidden, Intermediate]),
        Tensor::new("post_ffw_norm.weight", "post_feedforward_layernorm.weight", &[Hidden])
            .with(AddOne),
    ],
    config,
};

/// The number of layers of Gemma 2 27B, the one model whose scores are not scaled by the
/// width of a head. The metadata do not say by what; llama.cpp, too, knows it by its layers.
const LAYERS_OF_27B: usize = 46;

fn config(settings: &Settings<'_>) -> Result<Value> {
    let d = settings.dimensions();
    // What the metadata leave out has the same default in llama.cpp and in transformers.
    let cap = |key: &str, default: f64| Ok(settings.float(key)?.unwrap_or(default));
    settings.with_rotary_fields(json!({
        "attention_bias": false,
        "attn_logit_softcapping": cap("attn_logit_softcapping", 50.0)?,
        "final_logit_softcapping": cap("final_logit_softcapping", 30.0)?,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": match d.layers {
            LAYERS_OF_27B => d.hidden / d.heads,
            _ => d.head_dim,
        },
        "sliding_window": settings.number("attention.sliding_window")?.unwrap_or(4096),
    }))
}

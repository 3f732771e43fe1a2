//! GPT-NeoX and Pythia: queries, keys and values in one tensor, rotary positions on a part of
//! each head, and a plain network.

use super::architecture::{
    Architecture,
    Change::CollectHeads,
    Size::{Fused, Hidden, Intermediate, Vocabulary},
    Tensor,
};
use crate::{Dtype, gguf::settings::Settings};
use serde_json::{Value, json};
use sparsellm_base::{Result, input_error};

pub(super) const GPTNEOX: Architecture = Architecture {
    name: "gptneox",
    class: ("GPTNeoXForCausalLM", "gpt_neox"),
    dtype: Dtype::F16,
    outer: &[
        Tensor::new("token_embd.weight", "gpt_neox.embed_in.weight", &[Vocabulary, Hidden]),
        Tensor::new("output_norm.weight", "gpt_neox.final_layer_norm.weight", &[Hidden]),
        Tensor::new("output_norm.bias", "gpt_neox.final_layer_norm.bias", &[Hidden]),
        Tensor::new("output.weight", "embed_out.weight", &[Vocabulary, Hidden]).optional(),
    ],
    layers: "gpt_neox.layers.",
    layer: &[
        Tensor::new("attn_norm.weight", "input_layernorm.weight", &[Hidden]),
        Tensor::new("attn_norm.bias", "input_layernorm.bias", &[Hidden]),
        Tensor::new("attn_qkv.weight", "attention.query_key_value.weight", &[Fused, Hidden])
            .with(CollectHeads),
        Tensor::new("attn_qkv.bias", "attention.query_key_value.bias", &[Fused]).with(CollectHeads),
        Tensor::new("attn_output.weight", "attention.dense.weight", &[Hidden, Hidden]),
        Tensor::new("attn_output.bias", "attention.dense.bias", &[Hidden]),
        Tensor::new("ffn_norm.weight", "post_attention_layernorm.weight", &[Hidden]),
        Tensor::new("ffn_norm.bias", "post_attention_layernorm.bias", &[Hidden]),
        Tensor::new("ffn_up.weight", "mlp.dense_h_to_4h.weight", &[Intermediate, Hidden]),
        Tensor::new("ffn_up.bias", "mlp.dense_h_to_4h.bias", &[Intermediate]),
        Tensor::new("ffn_down.weight", "mlp.dense_4h_to_h.weight", &[Hidden, Intermediate]),
        Tensor::new("ffn_down.bias", "mlp.dense_4h_to_h.bias", &[Hidden]),
    ],
    config,
};

fn config(settings: &Settings<'_>) -> Result<Value> {
    let d = settings.dimensions();
    if d.kv_heads != d.heads || d.head_dim * d.heads != d.hidden {
        return input_error!(
            "{}: {} heads of {} over {} key-value heads are no GPT-NeoX of width {}",
            settings.file(),
            d.heads,
            d.head_dim,
            d.kv_heads,
            d.hidden
        );
    }
    let theta = settings.rope_theta()?;
    let rotated = settings.number("rope.dimension_count")?.unwrap_or(d.head_dim);
    let share = rotated as f64 / d.head_dim as f64;
    Ok(json!({
        "hidden_act": "gelu",
        "layer_norm_eps": settings.positive("attention.layer_norm_epsilon", None)?,
        "rope_scaling": settings.rope_scaling(theta)?,
        "rope_theta": theta,
        "rotary_emb_base": theta,
        "rotary_pct": share,
        "use_parallel_residual": settings.flag("use_parallel_residual")?.unwrap_or(true),
    }))
}

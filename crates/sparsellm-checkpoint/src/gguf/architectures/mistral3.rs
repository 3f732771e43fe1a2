//! Mistral 3: LLaMA's tensors, with a window.

use super::{architecture::Architecture, llama};
use crate::{Dtype, gguf::settings::Settings};
use serde_json::{Value, json};
use sparsellm_base::{Result, input_error};

pub(super) const MISTRAL3: Architecture = Architecture {
    name: "mistral3",
    class: ("MistralForCausalLM", "mistral"),
    dtype: Dtype::Bf16,
    outer: llama::OUTER,
    layers: "model.layers.",
    layer: llama::LAYER,
    config,
};

fn config(settings: &Settings<'_>) -> Result<Value> {
    let key = "attention.temperature_scale";
    if let Some(scale) = settings.float(key)?.filter(|scale| *scale != 0.0) {
        return input_error!(
            "{}: `mistral3.{key}` is {scale}: queries that are scaled with their position are not read",
            settings.file()
        );
    }
    settings.with_rotary_fields(json!({
        "hidden_act": "silu",
        "sliding_window": settings.number("attention.sliding_window")?,
    }))
}

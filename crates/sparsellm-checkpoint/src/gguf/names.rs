//! Maps llama.cpp's tensor names to Hugging Face's, with the shape that each must have.

use super::dimensions::Dimensions;

/// The role of a tensor in a llama model.
#[derive(Debug, PartialEq)]
pub(super) struct Role {
    /// The tensor's name in a Hugging Face checkpoint.
    pub name: String,
    /// The tensor's row-major shape.
    pub shape: Vec<usize>,
    /// Number of heads whose rows llama.cpp interleaved (query and key projections only).
    pub heads: Option<usize>,
}

/// The tensors of one decoder layer: llama.cpp's name and Hugging Face's.
const LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Whether the tensor is a table computed from the configuration, and so not a weight.
pub(super) fn is_derived(name: &str) -> bool {
    name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight")
}

/// The role of llama.cpp's tensor `name`; `None` if a dense llama has no such tensor.
pub(super) fn role(name: &str, d: &Dimensions) -> Option<Role> {
    let stem = name.strip_suffix(".weight")?;
    let outer = |name: &str, shape: &[usize]| {
        Some(Role { name: name.to_owned(), shape: shape.to_vec(), heads: None })
    };
    match stem {
        "token_embd" => return outer("model.embed_tokens.weight", &[d.vocab, d.hidden]),
        "output" => return outer("lm_head.weight", &[d.vocab, d.hidden]),
        "output_norm" => return outer("model.norm.weight", &[d.hidden]),
        _ => {}
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok().filter(|n| *n < d.layers)?;
    let (_, hf) = LAYER.iter().find(|(gguf, _)| *gguf == part)?;
    let (queries, keys) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
    let (shape, heads) = match part {
        "attn_q" => (vec![queries, d.hidden], Some(d.heads)),
        "attn_k" => (vec![keys, d.hidden], Some(d.kv_heads)),
        "attn_v" => (vec![keys, d.hidden], None),
        "attn_output" => (vec![d.hidden, queries], None),
        "ffn_gate" | "ffn_up" => (vec![d.intermediate, d.hidden], None),
        "ffn_down" => (vec![d.hidden, d.intermediate], None),
        _ => (vec![d.hidden], None),
    };
    Some(Role { name: format!("model.layers.{layer}.{hf}.weight"), shape, heads })
}

/// The Hugging Face names that a model of `layers` layers must have.
pub(super) fn required(layers: usize) -> impl Iterator<Item = String> {
    let outer = ["model.embed_tokens.weight", "model.norm.weight"].map(str::to_owned);
    outer.into_iter().chain((0..layers).flat_map(|layer| {
        LAYER.iter().map(move |(_, hf)| format!("model.layers.{layer}.{hf}.weight"))
    }))
}

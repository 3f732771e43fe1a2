//! Blocks that give nothing: a network that was switched off by zeroing its weights is pruned by
//! every method like any other, while activations that are not finite remain an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm::{Error, Evaluator, Model, PruneReport, Pruner, Result};
use sparsellm_checkpoint::Existing;
use sparsellm_prune::{METHODS, Method, Pattern, find_method, holds};
use sparsellm_testing::{edited, fixture, token_file};
use std::path::Path;

/// Tensors that are zeroed, by parts of their names: the outputs of attention and of the network,
/// or the first linear, which leaves the last one with inputs (nearly) all zero.
const ZEROED: [(&str, &[&str]); 9] = [
    ("llama3", &["layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"]),
    ("llama3", &["layers.1.mlp.gate_proj"]),
    ("llama3", &["layers.1.input_layernorm", "layers.1.post_attention_layernorm"]),
    ("gemma2", &["layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"]),
    ("opt-125m-style", &["layers.1.fc2"]),
    ("opt-125m-style", &["layers.1.fc1"]),
    ("opt-350m-style", &["layers.0.fc2", "layers.0.self_attn.out_proj"]),
    ("gpt-neox", &["layers.1.mlp.dense_4h_to_h"]),
    ("gpt-neox", &["layers.1.attention.dense", "layers.1.mlp.dense_h_to_4h"]),
];

fn prune(
    model: &Model,
    method: &dyn Method,
    pattern: &str,
    ids: &str,
    out: &Path,
) -> Result<PruneReport> {
    Pruner::for_model(model)
        .method(method)
        .set("pattern", pattern)
        .set("block_size", 16)
        .calibration(ids)
        .samples(8)
        .seq_len(24)
        .existing(Existing { replace: true, resume: false })
        .write(out)
}

/// Every group of an N:M pattern holds its zeros.
fn follows(pruned: &Model, pattern: Pattern) -> bool {
    let Pattern::NofM { zeros, of } = pattern else { return true };
    (0..pruned.shape().layers).all(|index| {
        let block = pruned.block(index).unwrap();
        block.linears().iter().all(|linear| holds(&linear.weight, zeros, of))
    })
}

#[test]
fn blocks_that_give_nothing_are_pruned_by_every_method() {
    let temp = tempfile::tempdir().unwrap();
    for (i, (family, parts)) in ZEROED.iter().enumerate() {
        let folder = temp.path().join(i.to_string());
        let mut zeroed = 0;
        edited(&fixture(&format!("families/{family}")), &folder, |name, _, bytes| {
            if parts.iter().any(|part| name.contains(part)) {
                bytes.fill(0);
                zeroed += 1;
            }
        });
        assert!(zeroed >= parts.len(), "{family} {parts:?}");
        let model = Model::open(&folder).unwrap();
        let ids = token_file(temp.path(), model.shape().vocabulary);
        for method in METHODS {
            for pattern in ["50%", "2:4"] {
                let at = format!("{family} without {parts:?}, {} {pattern}", method.name());
                let output = temp.path().join("out");
                let report = prune(&model, *method, pattern, &ids, &output)
                    .unwrap_or_else(|e| panic!("{at}: {e}"));
                assert!(report.sparsity > 0.48, "{at}: {}", report.sparsity);
                for layer in &report.layers {
                    assert!(layer.ffn_error.iter().all(|e| e.is_finite()), "{at}: {layer:?}");
                }
                let pruned = Model::open(&output).unwrap();
                assert!(follows(&pruned, pattern.parse().unwrap()), "{at}");
                let perplexity = Evaluator::new(&pruned).seq_len(24).perplexity(&ids).unwrap();
                assert!(perplexity.perplexity.is_finite(), "{at}");
            }
        }
    }
}

#[test]
fn the_error_of_a_network_that_gives_nothing_is_what_it_gives_once_pruned() {
    let temp = tempfile::tempdir().unwrap();
    edited(&fixture("families/llama3"), &temp.path().join("model"), |name, _, bytes| {
        if name.contains("layers.1.mlp.gate_proj") {
            bytes.fill(0);
        }
    });
    let model = Model::open(&temp.path().join("model")).unwrap();
    let ids = token_file(temp.path(), model.shape().vocabulary);
    let method = find_method("sparsellm").unwrap();
    let report = prune(&model, method, "50%", &ids, &temp.path().join("out")).unwrap();
    assert!(report.layers[0].ffn_error.iter().all(|e| (1e-6..1.0).contains(e)));
    assert!(report.layers[1].ffn_error.iter().all(|e| *e == 0.0));
}

#[test]
fn activations_that_are_not_finite_remain_an_error() {
    let temp = tempfile::tempdir().unwrap();
    // The products of such weights leave f32, which the weights do not.
    edited(&fixture("families/llama3"), &temp.path().join("model"), |name, _, bytes| {
        if name.contains("layers.1.mlp.up_proj") || name.contains("layers.1.mlp.gate_proj") {
            bytes.chunks_exact_mut(4).for_each(|v| v.copy_from_slice(&1e30f32.to_le_bytes()));
        }
    });
    let model = Model::open(&temp.path().join("model")).unwrap();
    let ids = token_file(temp.path(), model.shape().vocabulary);
    for name in ["sparsegpt", "sparsellm", "sparsellm-plus"] {
        let method = find_method(name).unwrap();
        let error = prune(&model, method, "50%", &ids, &temp.path().join("out")).unwrap_err();
        assert!(matches!(error, Error::Numerics(_)), "{name}: {error:?}");
        assert!(error.to_string().contains("layer 1: the "), "{name}: {error}");
        assert!(error.to_string().contains("not finite"), "{name}: {error}");
    }
}

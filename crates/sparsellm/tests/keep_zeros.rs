//! A sparse model pruned again: with `keep_zeros`, every method leaves every zero of every family
//! where it was, and adds those that the pattern still needs; without it, the model is told of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm::{Event, Model, Observer, PruneReport, Pruner};
use sparsellm_checkpoint::Existing;
use sparsellm_prune::{METHODS, Method, find_method, holds};
use sparsellm_testing::{edited, fixture, token_file};
use std::path::Path;

/// A copy of a family's fixture (of f32 weights) in which two of every four weights of every
/// linear are zero.
fn sparse(family: &str, to: &Path) -> Model {
    edited(&fixture(&format!("families/{family}")), to, |name, shape, bytes| {
        if shape.len() == 2 && name.contains("layers.") {
            let (cols, mut draws) = (shape[1], rand_mt::Mt::new(name.len() as u32));
            let mut values: Vec<&mut [u8]> = bytes.chunks_exact_mut(4).collect();
            assert_eq!((values.len(), cols % 4), (shape[0] * cols, 0), "{name}");
            for group in values.chunks_exact_mut(4) {
                let first = draws.next_u32() as usize % 4;
                let second = (first + 1 + draws.next_u32() as usize % 3) % 4;
                group[first].fill(0);
                group[second].fill(0);
            }
        }
    });
    Model::open(to).unwrap()
}

/// Prunes, and gives the warnings, too.
fn prune(
    model: &Model,
    method: &dyn Method,
    settings: &[(&str, serde_json::Value)],
    ids: &str,
    out: &Path,
) -> (PruneReport, Vec<String>) {
    let mut warnings = Vec::new();
    let mut pruner = Pruner::for_model(model)
        .method(method)
        .set("block_size", 16)
        .calibration(ids)
        .samples(8)
        .seq_len(24)
        .existing(Existing { replace: true, resume: false });
    for (name, value) in settings {
        pruner = pruner.set(name, value.clone());
    }
    let report = pruner
        .observer(Observer::new(|event| {
            if let Event::Warning(text) = event {
                warnings.push(text);
            }
            Ok(())
        }))
        .write(out)
        .unwrap_or_else(|e| panic!("{} {settings:?}: {e}", method.name()));
    (report, warnings)
}

#[test]
fn every_method_keeps_every_zero_of_every_family() {
    let temp = tempfile::tempdir().unwrap();
    for family in ["llama3", "opt-125m-style", "gpt-neox", "gemma2"] {
        let model = sparse(family, &temp.path().join(family));
        let ids = token_file(temp.path(), model.shape().vocabulary);
        for method in METHODS {
            for pattern in ["75%", "3:4", "10%"] {
                let at = format!("{family}, {}, {pattern}", method.name());
                let output = temp.path().join("out");
                let settings = [("keep_zeros", true.into()), ("pattern", pattern.into())];
                let (report, warnings) = prune(&model, *method, &settings, &ids, &output);
                assert!(!warnings.iter().any(|w| w.contains("keep_zeros")), "{at}: {warnings:?}");
                // The input's own half, where the pattern asks for less.
                let wanted = if pattern == "10%" { 0.5 } else { 0.75 };
                assert!((report.sparsity - wanted).abs() < 0.02, "{at}: {}", report.sparsity);
                let pruned = Model::open(&output).unwrap();
                for index in 0..model.shape().layers {
                    let (before, after) =
                        (model.block(index).unwrap(), pruned.block(index).unwrap());
                    for (before, after) in before.linears().iter().zip(after.linears()) {
                        let pairs = before.weight.data.iter().zip(&after.weight.data);
                        assert!(pairs.clone().all(|(b, a)| *b != 0.0 || *a == 0.0), "{at}");
                        assert!(holds(&after.weight, 2, 4), "{at}: {}", after.name);
                        assert!(pattern != "3:4" || holds(&after.weight, 3, 4), "{at}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_sparse_model_is_told_of_once() {
    let temp = tempfile::tempdir().unwrap();
    let model = sparse("llama3", &temp.path().join("model"));
    let dense = Model::open(&fixture("families/llama3")).unwrap();
    let ids = token_file(temp.path(), model.shape().vocabulary);
    let out = temp.path().join("out");
    for name in ["magnitude", "sparsellm-plus"] {
        let method = find_method(name).unwrap();
        let (_, warnings) = prune(&model, method, &[], &ids, &out);
        let told: Vec<_> = warnings.iter().filter(|w| w.contains("`keep_zeros`")).collect();
        assert_eq!(told.len(), 1, "{warnings:?}");
        assert!(told[0].contains("layer 0: 50.0 % of its weights are zero"), "{told:?}");
        let (_, warnings) = prune(&dense, method, &[], &ids, &out);
        assert!(!warnings.iter().any(|w| w.contains("keep_zeros")), "{warnings:?}");
    }
    // The option changes what comes out, so that it tells one run from another.
    let settings = find_method("sparsegpt").unwrap().defaults();
    assert_eq!(settings.to_json()["keep_zeros"], false);
}

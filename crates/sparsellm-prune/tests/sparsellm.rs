//! SparseLLM agrees with a literal float64 reading of its equations
//! (`tools/fixtures/sparsellm_oracle.py`), for every kind of network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm_model::{Activation, Ffn, Linear};
use sparsellm_prune::{
    Pattern, Scope, Settings,
    sparsellm::{Reference, Streaming, Task, prune_network},
};
use sparsellm_ranks::Local;
use sparsellm_tensor::Matrix;
use sparsellm_testing::{Case, cases};

fn linear(case: &Case, name: &str, bias: Option<&str>) -> Linear {
    let bias = bias.map(|b| case.vector(b).iter().map(|&v| v as f32).collect());
    Linear::new(name, case.matrix(name), bias)
}

fn close(got: &Matrix, want: &Matrix, place: &str) {
    for (i, (got, want)) in got.data.iter().zip(&want.data).enumerate() {
        assert_eq!(*got == 0.0, *want == 0.0, "{place} at {i}: {got} against {want}");
        assert!((got - want).abs() <= 1e-3 * want.abs().max(1.0), "{place} at {i}: {got} {want}");
    }
}

#[test]
fn the_global_method_agrees_with_numpy() {
    for path in cases("sparsellm") {
        let case = Case::load(&path);
        let place = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut ffn = network(&case);
        let settings = Settings {
            pattern: match case.setting("pattern") {
                Some(pattern) => pattern.parse().unwrap(),
                None => Pattern::unstructured(case.number("sparsity")).unwrap(),
            },
            block_size: case.number("block_size") as usize,
            damping: case.number("damping") as f32,
            mask_scope: case.setting("scope").map_or(Scope::Block, |s| s.parse().unwrap()),
            sequential_refit: case.metadata.contains_key("sequential_refit"),
            target: case.setting("target").map_or(0.0, |t| t.parse().unwrap()),
            neuron_weights: case.setting("neuron_weights").map_or(0.0, |t| t.parse().unwrap()),
            alpha: Some(case.number("alpha") as f32),
            beta: Some(case.number("beta") as f32),
            epochs: case.number("epochs") as usize,
            ..Settings::published("sparsellm")
        };
        let reference = || Reference { output: case.matrix("R"), norm: None };
        let (x, streaming) = (case.matrix("X"), Streaming::in_memory(64));
        let task =
            Task { x: &x, shares: &[], settings: &settings, streaming: &streaming, ranks: &Local };
        let reference = case.has("R").then(reference);
        let outcome =
            prune_network(&mut ffn, reference, &task, &mut |_, _| Ok(())).unwrap().unwrap();
        for (got, want) in outcome.errors.iter().zip(case.vector("errors")) {
            assert!((got / want - 1.0).abs() < 1e-3, "{place}: E {got} against {want}");
        }
        assert_eq!(outcome.errors.len(), settings.epochs);
        assert_eq!(outcome.kept_epoch as f64, case.number("kept_epoch"), "{place}");
        for linear in ffn.linears() {
            let want = case.matrix(&format!("out.{}", linear.name));
            close(&linear.weight, &want, &format!("{place} {}", linear.name));
        }
    }
}

/// A case's network, of the kind that its metadata names.
fn network(case: &Case) -> Ffn {
    let kind = case.metadata["kind"].as_str();
    let activation = match kind.split_once('-') {
        _ if kind == "relu" => Activation::Relu,
        Some((_, "gelu")) => Activation::Gelu,
        Some((_, "gelu_tanh")) => Activation::GeluTanh,
        _ => Activation::Silu,
    };
    match kind == "relu" || kind.starts_with("plain") {
        true => Ffn::Plain {
            fc1: linear(case, "fc1", Some("b1")),
            fc2: linear(case, "fc2", Some("b2")),
            activation,
        },
        false => Ffn::Gated {
            gate: linear(case, "gate", None),
            up: linear(case, "up", None),
            down: linear(case, "down", None),
            activation,
        },
    }
}

//! SparseLLM agrees with a literal float64 reading of its equations
//! (`tools/fixtures/sparsellm_oracle.py`), for both kinds of network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Case, cases};
use sparsellm::{
    linalg::Matrix,
    model::{Activation, FeedForward, Linear},
    prune::{Options, Scope, sparsegpt::Sweep, sparsellm as global},
    ranks::Local,
};

fn linear(case: &Case, name: &'static str, bias: Option<&str>) -> Linear {
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
        let mut ffn = match case.metadata["kind"].as_str() {
            "relu" => FeedForward::Mlp {
                fc1: linear(&case, "fc1", Some("b1")),
                fc2: linear(&case, "fc2", Some("b2")),
                activation: Activation::Relu,
            },
            _ => FeedForward::SwiGlu {
                gate: linear(&case, "gate", None),
                up: linear(&case, "up", None),
                down: linear(&case, "down", None),
            },
        };
        let settings = global::Settings {
            pattern: case.pattern(),
            solver: Options {
                sweep: Sweep { block_size: case.number("block_size") as usize, bits: None },
                damping: case.number("damping") as f32,
                scope: case.metadata.get("scope").map_or(Scope::Block, |s| s.parse().unwrap()),
                ..Options::default()
            },
            sequential_refit: case.metadata.contains_key("sequential_refit"),
            target: case.metadata.get("target").map_or(0.0, |t| t.parse().unwrap()),
            neuron_weights: case.metadata.get("neuron_weights").map_or(0.0, |t| t.parse().unwrap()),
            alpha: case.number("alpha") as f32,
            beta: case.number("beta") as f32,
            epochs: case.number("epochs") as usize,
            chunk: 64,
            storage: global::Storage::default(),
        };
        let reference = case.has("R").then(|| case.matrix("R"));
        let outcome =
            global::prune(&mut ffn, &case.matrix("X"), reference, &settings, &Local, |_, _| Ok(()))
                .unwrap();
        for (got, want) in outcome.errors.iter().zip(case.vector("errors")) {
            assert!((got / want - 1.0).abs() < 1e-3, "{place}: E {got} against {want}");
        }
        assert_eq!(outcome.errors.len(), settings.epochs);
        assert_eq!(outcome.kept_epoch as f64, case.number("kept_epoch"), "{place}");
        let linears: Vec<&Linear> = match &ffn {
            FeedForward::Mlp { fc1, fc2, .. } => vec![fc1, fc2],
            FeedForward::SwiGlu { gate, up, down } => vec![gate, up, down],
        };
        for linear in linears {
            let want = case.matrix(&format!("out.{}", linear.name));
            close(&linear.weight, &want, &format!("{place} {}", linear.name));
        }
    }
}

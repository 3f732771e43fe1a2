//! Ill-conditioned Hessians, from 8 to 512 features: no method stops, no weight is
//! anything but a number, and what had to be damped more than asked for is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rand_mt::Mt;
use sparsellm_model::{Activation, Ffn, Linear};
use sparsellm_prune::{
    Gram, Pattern, Problem, Settings, find_method,
    sparsellm::{Streaming, Task, prune_network},
};
use sparsellm_ranks::Local;
use sparsellm_tensor::Matrix;

const WIDTHS: [usize; 4] = [8, 32, 128, 512];

fn random(rng: &mut Mt) -> f32 {
    rng.next_u32() as f32 / 2f32.powi(31) - 1.0
}

fn matrix(rows: usize, cols: usize, rng: &mut Mt, scale: f32) -> Matrix {
    Matrix::new(rows, cols, (0..rows * cols).map(|_| scale * random(rng)).collect())
}

/// Inputs `[tokens, d]` that are hard on a Hessian, by name.
fn inputs(d: usize) -> Vec<(&'static str, Matrix)> {
    let mut rng = Mt::new(d as u32);
    let of = |tokens: usize, f: &mut dyn FnMut(usize, usize) -> f32| {
        let at = |i: usize| (i / d, i % d);
        let values = (0..tokens * d).map(|i| f(at(i).0, at(i).1)).collect();
        Matrix::new(tokens, d, values)
    };
    let base = matrix(2 * d, d, &mut rng, 1.0);
    let mut noise = || random(&mut rng);
    vec![
        ("every feature twice", of(2 * d, &mut |t, j| base.row(t)[j / 2])),
        ("one token", of(1, &mut |_, j| base.row(0)[j])),
        ("a constant feature", of(2 * d, &mut |t, j| if j == 1 { 100.0 } else { base.row(t)[j] })),
        ("all features equal", of(2 * d, &mut |t, _| base.row(t)[0])),
        ("all features dead", of(2 * d, &mut |_, _| 0.0)),
        ("all but one dead", of(2 * d, &mut |t, j| if j == 3 { base.row(t)[j] } else { 0.0 })),
        // As where a model overflows half precision: 65504 is its largest number.
        ("past half precision", of(2 * d, &mut |t, j| 1e6 * base.row(t)[j])),
        (
            "one massive feature",
            of(2 * d, &mut |t, j| base.row(t)[j] * if j == 2 { 1e7 } else { 1.0 }),
        ),
        ("next to nothing", of(2 * d, &mut |t, j| 1e-18 * base.row(t)[j])),
        (
            "nearly the same",
            of(2 * d, &mut |t, j| base.row(t)[0] * (1.0 + 1e-6 * j as f32) + 1e-7 * noise()),
        ),
    ]
}

/// SparseGPT's solver, with a refit, ADMM, and without damping.
fn solvers() -> [Settings; 4] {
    let obs = Settings {
        pattern: Pattern::Unstructured(0.5),
        block_size: 32,
        ..Settings::published("sparsellm")
    };
    let plus = find_method("sparsellm-plus").unwrap().defaults();
    let admm = Settings { solver: plus.solver, mask_scope: plus.mask_scope, ..obs.clone() };
    [obs.clone(), Settings { refit: 10, ..obs.clone() }, admm, Settings { damping: 0.0, ..obs }]
}

fn finite(w: &Matrix) -> bool {
    w.data.iter().all(|v| v.is_finite())
}

fn zeros(w: &Matrix) -> f64 {
    w.data.iter().filter(|v| **v == 0.0).count() as f64 / w.data.len() as f64
}

#[test]
fn no_hessian_stops_a_solver() {
    for d in WIDTHS {
        for (what, x) in inputs(d) {
            let mut gram = Gram::new(d);
            gram.add(x.view());
            for (i, settings) in solvers().into_iter().enumerate() {
                for pattern in [Pattern::Unstructured(0.5), "2:4".parse().unwrap()] {
                    let at = format!("{what}, d = {d}, solver {i}, {pattern}");
                    let settings = Settings { pattern, ..settings.clone() };
                    let problem = Problem::new(&gram, &settings, &Local).expect(&at);
                    let used = problem.factor.damping;
                    assert!(used >= settings.damping && used.is_finite(), "{at}: {used}");
                    let mut w = matrix(16, d, &mut Mt::new(1), 0.1);
                    problem.prune(&mut w, &settings.selection(&Local));
                    assert!(finite(&w), "{at}");
                    assert!(zeros(&w) >= 0.5 - 1e-9, "{at}: {}", zeros(&w));
                }
            }
        }
    }
}

#[test]
fn without_damping_a_singular_hessian_has_it_raised() {
    for d in WIDTHS {
        for (what, x) in inputs(d) {
            let mut gram = Gram::new(d);
            gram.add(x.view());
            let settings = Settings { damping: 0.0, ..Settings::published("sparsegpt") };
            let used = Problem::new(&gram, &settings, &Local).unwrap().factor.damping;
            let singular = ["one token", "all features equal", "every feature twice"];
            if singular.contains(&what) {
                assert!(used > 0.0, "{what}, d = {d}: {used}");
            }
            if what == "all features dead" {
                assert_eq!(used, 0.0, "dead features are set apart, not damped");
            }
        }
    }
}

fn networks(d: usize) -> [Ffn; 2] {
    let mut rng = Mt::new(9);
    let mut linear = |name, rows, cols, bias: f32| {
        let weight = matrix(rows, cols, &mut rng, 1.0 / (cols as f32).sqrt());
        Linear::new(name, weight, (bias != 0.0).then(|| vec![bias; rows]))
    };
    [
        Ffn::Gated {
            activation: Activation::Silu,
            gate: linear("gate", 2 * d, d, 0.0),
            up: linear("up", 2 * d, d, 0.0),
            down: linear("down", d, 2 * d, 0.0),
        },
        // A network none of whose neurons ever fires.
        Ffn::Plain {
            fc1: linear("fc1", 2 * d, d, -1e9),
            fc2: linear("fc2", d, 2 * d, 0.5),
            activation: Activation::Relu,
        },
    ]
}

#[test]
fn no_hessian_stops_the_global_method() {
    for d in WIDTHS {
        for (what, x) in inputs(d) {
            // The widest with one solver each, in turn: they take seconds.
            let turn = x.rows + what.len();
            let solvers = solvers().into_iter().enumerate();
            for (i, solver) in solvers.filter(|(i, _)| d < 512 || turn % 4 == *i) {
                for mut ffn in networks(d) {
                    let settings = Settings {
                        sequential_refit: i == 2,
                        neuron_weights: if i == 2 { 0.5 } else { 0.0 },
                        alpha: Some(1.0),
                        beta: Some(1.0),
                        epochs: 2,
                        ..solver.clone()
                    };
                    let at = format!("{what}, d = {d}, solver {i}");
                    let streaming = Streaming::in_memory(256);
                    let task = Task {
                        x: &x,
                        shares: &[],
                        settings: &settings,
                        streaming: &streaming,
                        ranks: &Local,
                    };
                    let outcome = prune_network(&mut ffn, None, &task, &mut |_, _| Ok(()));
                    let outcome = outcome.unwrap_or_else(|e| panic!("{at}: {e}"));
                    let outcome = outcome.unwrap_or_else(|| panic!("{at}: nothing finite"));
                    assert!(outcome.kept_epoch >= 1, "{at}");
                    assert!(outcome.errors[outcome.kept_epoch - 1].is_finite(), "{at}");
                    let used = outcome.damping.iter().any(|d| *d > settings.damping);
                    let said = outcome.warnings.iter().any(|w| w.contains("damping raised"));
                    assert!(!used || said, "{at}: {:?}", outcome.warnings);
                    let linears = ffn.linears();
                    assert!(linears.iter().all(|l| finite(&l.weight)), "{at}");
                }
            }
        }
    }
}

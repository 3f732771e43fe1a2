//! What holds for the global method on any input.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand_mt::Mt;
use sparsellm_model::{Activation, Ffn, Linear};
use sparsellm_prune::{
    Pattern, Settings, count, find_method, holds,
    sparsellm::{
        Gated, Outcome, Reference, ReluUpdates, Smooth, Streaming, Task, Updates, prune_network,
    },
};
use sparsellm_ranks::Local;
use sparsellm_tensor::{Gelu, Matrix, Scalar, Silu};

fn random(rows: usize, cols: usize, rng: &mut Mt, scale: f32) -> Matrix {
    let mut value = || {
        let v = rng.next_u32() as f32 / 2f32.powi(31) - 1.0;
        // Cubes have heavier tails, as activations do.
        scale * 3.0 * v * v * v
    };
    Matrix::new(rows, cols, (0..rows * cols).map(|_| value()).collect())
}

/// The kinds of network.
const KINDS: [(bool, Activation); 6] = [
    (false, Activation::Relu),
    (false, Activation::Gelu),
    (false, Activation::GeluTanh),
    (true, Activation::Silu),
    (true, Activation::Gelu),
    (true, Activation::GeluTanh),
];

fn network((gated, activation): (bool, Activation), d: usize, ff: usize, rng: &mut Mt) -> Ffn {
    let mut linear = |name, rows, cols, bias: bool| {
        Linear::new(name, random(rows, cols, rng, 0.4), bias.then(|| vec![0.1; rows]))
    };
    match gated {
        false => Ffn::Plain {
            fc1: linear("fc1", ff, d, true),
            fc2: linear("fc2", d, ff, true),
            activation,
        },
        true => Ffn::Gated {
            gate: linear("gate", ff, d, false),
            up: linear("up", ff, d, false),
            down: linear("down", d, ff, false),
            activation,
        },
    }
}

fn prune(ffn: &mut Ffn, x: &Matrix, reference: Option<Matrix>, settings: &Settings) -> Outcome {
    let streaming = Streaming::in_memory(64);
    let task = Task { x, shares: &[], settings, streaming: &streaming, ranks: &Local };
    let reference = reference.map(|output| Reference { output, norm: None });
    prune_network(ffn, reference, &task, &mut |_, _| Ok(())).unwrap().unwrap()
}

fn penalty() -> impl Strategy<Value = f32> {
    prop::sample::select(vec![0.01f32, 0.1, 1.0, 5.0, 10.0, 100.0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The kept iterate is never worse than the first epoch's, which for
    /// sparsellm is SparseGPT's; nothing is ever non-finite; masks are exact.
    #[test]
    fn the_guard_and_the_masks_hold(
        seed in any::<u32>(), kind in prop::sample::select(KINDS.to_vec()), alpha in penalty(), beta in penalty(),
        pattern in prop::sample::select(vec!["0.5", "0.8", "2:4", "3:4"]),
        outliers in any::<bool>(), plus in any::<bool>(),
    ) {
        let mut rng = Mt::new(seed);
        let (d, ff, n) = (16, 32, 150);
        let mut ffn = network(kind, d, ff, &mut rng);
        let mut x = random(n, d, &mut rng, 1.0);
        if outliers {
            x.row_mut(0).iter_mut().for_each(|v| *v *= 300.0);
        }
        let pattern: Pattern = match pattern.parse() {
            Ok(rho) => Pattern::Unstructured(rho),
            Err(_) => pattern.parse().unwrap(),
        };
        let method = find_method(if plus { "sparsellm-plus" } else { "sparsellm" }).unwrap();
        let (alpha, beta) = (Some(alpha), Some(beta));
        let settings =
            Settings { pattern, block_size: 8, alpha, beta, epochs: 3, ..method.defaults() };
        let reference = plus.then(|| random(n, d, &mut rng, 1.0));
        let outcome = prune(&mut ffn, &x, reference, &settings);
        let kept = outcome.errors[outcome.kept_epoch - 1];
        prop_assert!(kept.is_finite() && kept <= outcome.errors[0]);
        for linear in ffn.linears() {
            let w = &linear.weight;
            prop_assert!(w.data.iter().all(|v| v.is_finite()));
            match pattern {
                Pattern::NofM { zeros, of } => prop_assert!(holds(w, zeros, of)),
                Pattern::Unstructured(rho) if plus => {
                    let zeros = w.data.iter().filter(|v| **v == 0.0).count();
                    prop_assert_eq!(zeros, count(rho, w.data.len()));
                }
                Pattern::Unstructured(rho) => {
                    // Exactly the target in every block (no column is dead).
                    for start in (0..w.cols).step_by(8) {
                        let zeros = (0..w.rows)
                            .flat_map(|i| &w.row(i)[start..start + 8])
                            .filter(|v| **v == 0.0)
                            .count();
                        prop_assert_eq!(zeros, count(rho, w.rows * 8));
                    }
                }
            }
        }
    }
}

/// A network's outcome for one α, β.
fn outcome(kind: (bool, Activation), alpha: f32, beta: f32) -> Outcome {
    let mut rng = Mt::new(5);
    let mut ffn = network(kind, 16, 40, &mut rng);
    let x = random(200, 16, &mut rng, 1.0);
    let (alpha, beta) = (Some(alpha), Some(beta));
    prune(&mut ffn, &x, None, &Settings { alpha, beta, ..Settings::published("sparsellm") })
}

#[test]
fn chunks_change_nothing_but_rounding_and_penalties_never_break_it() {
    for kind in KINDS {
        for alpha in [0.01, 0.1, 1.0, 5.0, 10.0, 100.0] {
            for beta in [0.01, 0.1, 1.0, 5.0, 10.0, 100.0] {
                let outcome = outcome(kind, alpha, beta);
                assert!(outcome.errors.iter().all(|e| e.is_finite()), "{alpha} {beta}");
                assert!(outcome.errors[outcome.kept_epoch - 1] <= outcome.errors[0]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// No z is better than the closed form's, for ReLU.
    #[test]
    fn no_probe_beats_the_relu_z(
        a in -20f32..20.0, m in -20f32..20.0, alpha in penalty(), beta in penalty(),
        probe in -30f32..30.0,
    ) {
        let updates = ReluUpdates { alpha, beta };
        let best = updates.objective(a, m, updates.z(a, m));
        let other = updates.objective(a, m, probe);
        prop_assert!(best <= other * (1.0 + 1e-5) + 1e-6, "{best} {other}");
    }

    /// The SwiGLU z is the minimiser, and the s-update never raises its
    /// objective, outliers included.
    #[test]
    fn the_swiglu_updates_never_raise_their_objective(
        a in -1e4f32..1e4, m in -1e3f32..1e3, g in -40f32..40.0, z0 in -1e3f32..1e3,
        s0 in -40f32..40.0, alpha in penalty(), beta in penalty(), probe in -1e3f32..1e3,
    ) {
        let updates = Gated { alpha, beta, f: Silu };
        let mut state = [z0, s0];
        updates.update(&[a], &[m, g], &mut state);
        let [z, s] = state;
        let of_z = |z: f32| {
            let (linear, activation) = (f64::from(z - m), f64::from(a) - f64::from(Silu.value(s0)) * f64::from(z));
            f64::from(alpha) * linear * linear + f64::from(beta) * activation * activation
        };
        prop_assert!(of_z(z) <= of_z(probe) * (1.0 + 1e-4) + 1e-2);
        let of_s = |s: f32| updates.objective(a, g, z, s);
        prop_assert!(s.is_finite());
        prop_assert!(of_s(s) <= of_s(s0) * (1.0 + 1e-6));
    }

    /// The Newton steps on a plain network's z never raise its objective.
    #[test]
    fn the_smooth_update_never_raises_its_objective(
        a in -1e3f32..1e3, m in -40f32..40.0, z0 in -40f32..40.0, alpha in penalty(),
        beta in penalty(),
    ) {
        let updates = Smooth { alpha, beta, f: Gelu };
        let mut z = [z0];
        updates.update(&[a], &[m], &mut z);
        prop_assert!(z[0].is_finite());
        let (before, after) = (updates.objective(a, m, z0), updates.objective(a, m, z[0]));
        prop_assert!(after <= before * (1.0 + 1e-6), "{after} {before}");
    }
}

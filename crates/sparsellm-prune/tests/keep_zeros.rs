//! With `keep_zeros`, no method, solver or option gives a weight that is zero in the input another
//! value, and the pattern holds all the same.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sparsellm_model::{Activation, Ffn, Linear};
use sparsellm_prune::{
    Gram, METHODS, Pattern, Problem, Scope, Selection, Settings, Solver, count, find_method, holds,
    methods::Inputs,
    prune_matrix,
    sparsellm::{Reference, Streaming, Task, prune_network},
};
use sparsellm_ranks::Local;
use sparsellm_tensor::Matrix;
use sparsellm_testing::random;

const BLOCK: usize = 8;

/// How the input's zeros lie.
#[derive(Clone, Copy, Debug)]
enum Zeros {
    Share(f32),
    TwoOfFour,
    /// Every other row is zero, and the first column.
    Rows,
}

fn zeros() -> impl Strategy<Value = Zeros> {
    use Zeros::{Rows, Share, TwoOfFour};
    prop::sample::select(vec![Share(0.0), Share(0.3), Share(0.7), Share(0.95), TwoOfFour, Rows])
}

/// Random weights with such zeros.
fn weights(rows: usize, cols: usize, seed: u32, zeros: Zeros) -> Matrix {
    let mut w = random(rows, cols, seed, 0.4);
    let draws = random(rows, cols, seed ^ 0xa5a5, 1.0).data;
    for i in 0..w.data.len() {
        let (row, col) = (i / cols, i % cols);
        let zero = match zeros {
            Zeros::Share(share) => (draws[i] + 1.0) / 2.0 < share,
            Zeros::TwoOfFour => {
                let group = &draws[i - col % 4..i - col % 4 + 4];
                group.iter().filter(|d| **d < draws[i]).count() < 2
            }
            Zeros::Rows => row % 2 == 0 || col == 0,
        };
        if zero {
            w.data[i] = if i % 3 == 0 { -0.0 } else { 0.0 };
        }
    }
    w
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let all = ["0%", "50%", "80%", "2:4", "3:4", "4:8"];
    prop::sample::select(all.to_vec()).prop_map(|text| text.parse().unwrap())
}

/// The solvers, with their scopes and options.
fn solvers() -> impl Strategy<Value = Settings> {
    let published = Settings { block_size: BLOCK, ..Settings::published("sparsegpt") };
    let obs = |mask_scope| Settings { mask_scope, ..published.clone() };
    let admm = |mask_scope| Settings { mask_scope, solver: Solver::Admm, ..published.clone() };
    prop::sample::select(vec![
        obs(Scope::Block),
        obs(Scope::Row),
        obs(Scope::Matrix),
        Settings { bits: Some(4), ..obs(Scope::Block) },
        Settings { refit: 3, ..obs(Scope::Block) },
        admm(Scope::Row),
        Settings { refit: 3, ..admm(Scope::Matrix) },
    ])
}

/// No zero of `before` was revived, and `after` has the zeros that the pattern asks for within the
/// scope: no more than these, and than those of the input, if it is to be `exact`.
fn check(before: &Matrix, after: &Matrix, pattern: Pattern, scope: Scope, exact: bool) {
    assert!(after.data.iter().all(|v| v.is_finite()));
    assert!(before.data.iter().zip(&after.data).all(|(b, a)| *b != 0.0 || *a == 0.0));
    let rho = match pattern {
        Pattern::NofM { zeros, of } => return assert!(holds(after, zeros, of)),
        Pattern::Unstructured(rho) => rho,
    };
    let (rows, cols) = (before.rows, before.cols);
    let parts: Vec<_> = match scope {
        Scope::Matrix => vec![(0..rows, 0..cols)],
        Scope::Row => (0..rows).map(|i| (i..i + 1, 0..cols)).collect(),
        Scope::Block => (0..cols).step_by(BLOCK).map(|j| (0..rows, j..j + BLOCK)).collect(),
    };
    for (rows, cols) in parts {
        let zeros = |w: &Matrix| -> usize {
            let row = |i: usize| w.row(i)[cols.clone()].iter().filter(|v| **v == 0.0).count();
            rows.clone().map(row).sum()
        };
        let wanted = count(rho, rows.len() * cols.len()).max(zeros(before));
        assert!(zeros(after) >= wanted && (!exact || zeros(after) == wanted), "{rows:?} {cols:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn solvers_revive_no_zero(
        seed in any::<u32>(), zeros in zeros(), pattern in pattern(), settings in solvers(),
    ) {
        let (before, x) = (weights(16, 32, seed, zeros), random(120, 32, seed ^ 1, 1.0));
        let mut gram = Gram::new(32);
        gram.add(x.view());
        let settings = Settings { pattern, keep_zeros: true, ..settings };
        let mut after = before.clone();
        prune_matrix(&mut after, &gram, &settings).unwrap();
        // Rounding makes zeros of its own.
        check(&before, &after, pattern, settings.mask_scope, settings.bits.is_none());
    }

    #[test]
    fn methods_revive_no_zero(
        seed in any::<u32>(), zeros in zeros(), pattern in pattern(), refit in 0usize..3,
        dead in any::<bool>(),
    ) {
        let (before, mut x) = (weights(16, 32, seed, zeros), random(120, 32, seed ^ 1, 1.0));
        if dead {
            x.data.iter_mut().step_by(32).for_each(|v| *v = 0.0);
        }
        let mut gram = Gram::new(32);
        gram.add(x.view());
        let squared_norms = &gram.diagonal();
        for method in METHODS {
            let own = Settings { pattern, keep_zeros: true, block_size: BLOCK, refit, ..method.defaults() };
            let held = own.held(&before);
            let selection = Selection { held: held.as_deref(), ..own.selection(&Local) };
            let problem = Problem::new(&gram, &own, &Local).unwrap();
            let mut after = before.clone();
            problem.prune_by(&mut after, |w, products, rows| {
                let inputs = Inputs { squared_norms, problem: Some(&problem), products };
                method.prune(w, &inputs, &selection.of_rows(rows, w.cols));
            });
            let scope = match method.name() {
                "magnitude" => Scope::Matrix,
                "wanda" => Scope::Row,
                _ => own.mask_scope,
            };
            // Dead features lose their weights besides.
            check(&before, &after, pattern, scope, !dead);
        }
    }

    /// The auxiliary weights W̄ of later epochs are dense: their prune must not fill the zeros.
    #[test]
    fn sparsellm_revives_no_zero(
        seed in any::<u32>(), zeros in zeros(), pattern in pattern(), gated in any::<bool>(),
        plus in any::<bool>(),
    ) {
        let (d, ff) = (16, 32);
        let linear = |name: &str, rows, cols, seed| Linear::new(name, weights(rows, cols, seed, zeros), None);
        let mut ffn = match gated {
            false => Ffn::Plain {
                fc1: linear("fc1", ff, d, seed),
                fc2: linear("fc2", d, ff, seed ^ 2),
                activation: Activation::Relu,
            },
            true => Ffn::Gated {
                gate: linear("gate", ff, d, seed),
                up: linear("up", ff, d, seed ^ 2),
                down: linear("down", d, ff, seed ^ 3),
                activation: Activation::Silu,
            },
        };
        let before: Vec<Matrix> = ffn.linears().iter().map(|l| l.weight.view().to_matrix()).collect();
        let x = random(150, d, seed ^ 4, 1.0);
        let name = if plus { "sparsellm-plus" } else { "sparsellm" };
        let settings = Settings {
            pattern, keep_zeros: true, block_size: BLOCK, epochs: 3,
            ..find_method(name).unwrap().defaults()
        };
        let reference = plus.then(|| Reference { output: random(150, d, seed ^ 5, 1.0), norm: None });
        let streaming = Streaming::in_memory(64);
        let task = Task { x: &x, shares: &[], settings: &settings, streaming: &streaming, ranks: &Local };
        let outcome = prune_network(&mut ffn, reference, &task, &mut |_, _| Ok(())).unwrap().unwrap();
        prop_assert!(outcome.errors.iter().all(|e| e.is_finite()));
        for (before, linear) in before.iter().zip(ffn.linears()) {
            // Neurons whose weights are all zero are dead, and lose those of the last linear.
            check(before, &linear.weight, pattern, settings.mask_scope, false);
        }
    }
}

/// What a removed weight gave is made up for by the kept ones, and so it is where zeros are held:
/// a network whose dense weights moved (as SparseLLM's do between epochs) is solved better than by
/// setting the held weights to zero afterwards.
#[test]
fn held_zeros_are_compensated_for() {
    let (dense, x) = (random(16, 32, 1, 1.0), random(200, 32, 2, 1.0));
    // Features that are alike, so that one can stand in for another.
    let mut x = x;
    for row in x.data.chunks_exact_mut(32) {
        (0..16).for_each(|j| row[16 + j] = 0.9 * row[j] + 0.1 * row[16 + j]);
    }
    let mut gram = Gram::new(32);
    gram.add(x.view());
    let held: Vec<bool> =
        weights(16, 32, 3, Zeros::TwoOfFour).data.iter().map(|w| *w == 0.0).collect();
    let error = |w: &Matrix| {
        let mut change = w.clone();
        change.data.iter_mut().zip(&dense.data).for_each(|(c, d)| *c -= d);
        gram.energy(change.view())
    };
    let mut cut = dense.clone();
    cut.data.iter_mut().zip(&held).filter(|(_, held)| **held).for_each(|(w, _)| *w = 0.0);
    for solver in [Solver::Obs, Solver::Admm] {
        let pattern = Pattern::Unstructured(0.0);
        let settings = Settings {
            pattern,
            solver,
            mask_scope: solver.scope(),
            ..Settings::published("sparsegpt")
        };
        let problem = Problem::new(&gram, &settings, &Local).unwrap();
        let mut solved = dense.clone();
        problem.prune(&mut solved, &Selection { held: Some(&held), ..settings.selection(&Local) });
        assert!(solved.data.iter().zip(&held).all(|(w, held)| (*w == 0.0) == *held));
        assert!(
            error(&solved) < 0.7 * error(&cut),
            "{solver:?}: {} {}",
            error(&solved),
            error(&cut)
        );
    }
}

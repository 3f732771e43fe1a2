//! The local methods agree with NumPy (`tools/fixtures/solvers.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm_prune::{
    Gram, Pattern, Problem, Scope, Selection, Settings, Solver, find_method, methods::Inputs,
    solver::refit,
};
use sparsellm_ranks::Local;
use sparsellm_tensor::{Matrix, matmul, matmul_nt};
use sparsellm_testing::{Case, cases};

/// A case's settings.
fn settings(case: &Case) -> Settings {
    let admm = case.metadata["method"] == "admm";
    Settings {
        pattern: match case.setting("pattern") {
            Some(pattern) => pattern.parse().unwrap(),
            None => Pattern::unstructured(case.number("sparsity")).unwrap(),
        },
        solver: if admm { Solver::Admm } else { Solver::Obs },
        mask_scope: match case.setting("scope") {
            Some(scope) => scope.parse().unwrap(),
            None if admm => Scope::Matrix,
            None => Scope::Block,
        },
        damping: case.number("damping") as f32,
        block_size: case.number("block_size") as usize,
        bits: case.setting("bits").map(|b| b.parse().unwrap()),
        refit: case.setting("refit").map_or(0, |r| r.parse().unwrap()),
        keep_zeros: case.setting("keep_zeros").is_some(),
        ..Settings::published("sparsegpt")
    }
}

#[test]
fn local_methods_agree_with_numpy() {
    for path in cases("solvers") {
        let case = Case::load(&path);
        let (mut w, x, want) = (case.matrix("W"), case.matrix("X"), case.matrix("out"));
        let mut gram = Gram::new(x.cols);
        gram.add(x.view());
        let (settings, squared_norms) = (settings(&case), gram.diagonal());
        let problem = Problem::new(&gram, &settings, &Local).unwrap();
        let method = match case.metadata["method"].as_str() {
            "admm" => find_method("sparsegpt").unwrap(),
            name => find_method(name).unwrap(),
        };
        let held = settings.held(&w);
        let selection = Selection { held: held.as_deref(), ..settings.selection(&Local) };
        problem.prune_by(&mut w, |w, products, _| {
            let squared_norms = &squared_norms;
            let inputs = Inputs { squared_norms, problem: Some(&problem), products };
            method.prune(w, &inputs, &selection);
        });
        let scale = want.data.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (i, (got, want)) in w.data.iter().zip(&want.data).enumerate() {
            let place = format!("{} at {i}: {got} against {want}", path.display());
            assert_eq!(*got == 0.0, *want == 0.0, "{place}");
            assert!((got - want).abs() <= 1e-4 * scale, "{place}");
        }
    }
}

/// `tr((Ŵ − W) H (Ŵ − W)ᵀ)`.
fn objective(w: &Matrix, dense: &Matrix, h: &Matrix) -> f64 {
    let mut change = w.clone();
    change.data.iter_mut().zip(&dense.data).for_each(|(c, d)| *c -= d);
    let product = matmul_nt(change.view(), h.view());
    let terms = change.data.iter().zip(&product.data);
    terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Each refit step lowers the objective and keeps the mask, so that any number
/// of steps is safe to ask for.
#[test]
fn every_refit_step_helps() {
    for path in cases("solvers") {
        let case = Case::load(&path);
        if case.metadata["method"] == "admm" {
            continue;
        }
        let (dense, x, pruned) = (case.matrix("W"), case.matrix("X"), case.matrix("out"));
        let mut gram = Gram::new(x.cols);
        gram.add(x.view());
        let mut h = gram.scaled(1.0);
        h.data.iter_mut().step_by(x.cols + 1).for_each(|v| *v += 1.0);
        let b = matmul(dense.view(), h.view());
        let mut last = objective(&pruned, &dense, &h);
        for steps in 1..6 {
            let mut w = pruned.clone();
            refit(&mut w, &h, &b, steps);
            let now = objective(&w, &dense, &h);
            assert!(now <= last * (1.0 + 1e-6), "{} {steps}: {now} {last}", path.display());
            assert!(w.data.iter().zip(&pruned.data).all(|(a, b)| (*a == 0.0) == (*b == 0.0)));
            last = now;
        }
    }
}

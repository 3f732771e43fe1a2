//! The local methods agree with NumPy (`tools/fixtures/solvers.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Case, cases};
use sparsellm::{
    linalg::{Gram, InverseFactor},
    prune::{magnitude, sparsegpt, wanda},
};

#[test]
fn local_methods_agree_with_numpy() {
    for path in cases("solvers") {
        let case = Case::load(&path);
        let (mut w, x, want) = (case.matrix("W"), case.matrix("X"), case.matrix("out"));
        let mut gram = Gram::new(x.cols);
        gram.add(x.view());
        match case.metadata["method"].as_str() {
            "magnitude" => magnitude::prune(&mut w, case.pattern()),
            "wanda" => wanda::prune(&mut w, &gram.diagonal(), case.pattern()),
            "sparsegpt" => {
                let factor = InverseFactor::new(&gram, case.number("damping") as f32).unwrap();
                let bits = case.metadata.get("bits").and_then(|b| b.parse().ok());
                let sweep =
                    sparsegpt::Sweep { block_size: case.number("block_size") as usize, bits };
                sparsegpt::prune(&mut w, &factor, case.pattern(), sweep);
            }
            other => panic!("{other}"),
        }
        let scale = want.data.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (i, (got, want)) in w.data.iter().zip(&want.data).enumerate() {
            let place = format!("{} at {i}: {got} against {want}", path.display());
            assert_eq!(*got == 0.0, *want == 0.0, "{place}");
            assert!((got - want).abs() <= 1e-4 * scale, "{place}");
        }
    }
}

//! The statistics of a group's inputs that the methods require, summed over tokens.

use crate::{Gram, Method, Settings, methods::Needs, record::relative_error};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::{Matrix, View};

/// The sum `‖X_j‖²` over tokens, per feature.
pub struct SquaredNorms(pub Vec<f64>);

impl SquaredNorms {
    pub fn new(d_in: usize) -> Self {
        SquaredNorms(vec![0.0; d_in])
    }

    pub fn add(&mut self, x: View) {
        for row in x.data.chunks_exact(x.cols.max(1)) {
            self.0.iter_mut().zip(row).for_each(|(n, &v)| *n += f64::from(v) * f64::from(v));
        }
    }
}

/// The statistics of a group's inputs that a method requires.
pub enum Statistics {
    Nothing,
    SquaredNorms(SquaredNorms),
    /// `XᵀX`.
    Gram(Gram),
}

impl Statistics {
    pub fn new(method: &dyn Method, settings: &Settings, d_in: usize) -> Self {
        match method.needs() {
            _ if settings.refit > 0 => Statistics::Gram(Gram::new(d_in)),
            Needs::Nothing => Statistics::Nothing,
            Needs::SquaredNorms => Statistics::SquaredNorms(SquaredNorms::new(d_in)),
            Needs::Gram => Statistics::Gram(Gram::new(d_in)),
        }
    }

    /// `‖X_j‖²` per feature, or nothing if nothing was gathered.
    pub fn squared_norms(&self) -> Vec<f32> {
        match self {
            Statistics::Nothing => Vec::new(),
            Statistics::SquaredNorms(norms) => norms.0.iter().map(|&n| n as f32).collect(),
            Statistics::Gram(gram) => gram.diagonal(),
        }
    }

    /// Adds up the ranks' sums, each over its own tokens.
    pub fn sum(&mut self, ranks: &dyn Communicator) {
        match self {
            Statistics::Nothing => {}
            Statistics::SquaredNorms(norms) => ranks.sum(&mut norms.0),
            Statistics::Gram(gram) => gram.sum(ranks),
        }
    }

    pub fn add(&mut self, x: View) {
        match self {
            Statistics::Nothing => {}
            Statistics::SquaredNorms(norms) => norms.add(x),
            Statistics::Gram(gram) => gram.add(x),
        }
    }
}

/// The relative output error `‖X(W − Ŵ)ᵀ‖²/‖XWᵀ‖² = tr(ΔGΔᵀ)/tr(WGWᵀ)`, which the Gram matrix
/// is enough to compute.
pub fn output_error(gram: &Gram, before: &Matrix, after: &Matrix, ranks: &dyn Communicator) -> f64 {
    let rows = ranks.share(before.rows);
    let (before, after) = (before.rows(rows.clone()), after.rows(rows));
    let mut delta = before.to_matrix();
    delta.data.iter_mut().zip(after.data).for_each(|(d, a)| *d -= a);
    let mut energies = [gram.energy(delta.view()), gram.energy(before)];
    ranks.sum(&mut energies);
    relative_error(energies[0], energies[1])
}

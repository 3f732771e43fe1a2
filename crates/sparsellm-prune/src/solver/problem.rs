//! The problem that every second-order method solves for the linears that share an input with
//! Hessian H:
//!
//! ```text
//! min  tr((Ŵ − W) H (Ŵ − W)ᵀ)      (Ŵ sparse)
//! ```

use super::{admm, kind::Solver, obs, refit::refit};
use crate::{
    Selection, Settings,
    hessian::{Gram, InverseFactor, on_rows},
};
use sparsellm_base::{Result, numerics_error};
use sparsellm_ranks::{Communicator, Local};
use sparsellm_tensor::profile::{Phase, phase};
use sparsellm_tensor::{Matrix, matmul};
use std::ops::Range;

/// Prunes one weight matrix `w: [d_out, d_in]` in place with the settings' solver,
/// given the Gram matrix `XᵀX` of its inputs.
///
/// # Errors
/// If the Gram matrix is not finite.
///
/// # Example
/// See the [crate's](crate) front page.
pub fn prune_matrix(w: &mut Matrix, gram: &Gram, settings: &Settings) -> Result<()> {
    match Problem::new(gram, settings, &Local) {
        Some(problem) => {
            let held = settings.held(w);
            let selection = Selection { held: held.as_deref(), ..settings.selection(&Local) };
            problem.prune(w, &selection);
            Ok(())
        }
        None => numerics_error!("the Gram matrix is not finite: there is nothing to prune against"),
    }
}

/// A Hessian H, prepared for pruning the linears that share it.
pub struct Problem<'a> {
    /// The inverse factor of the damped H.
    pub factor: InverseFactor,
    /// The damped H itself, if the refit or ADMM needs it.
    hessian: Option<Matrix>,
    admm: Option<admm::Factor>,
    settings: Settings,
    ranks: &'a dyn Communicator,
}

impl<'a> Problem<'a> {
    /// Prepares the Hessian of `gram`; `None` if it is not finite.
    pub fn new(gram: &Gram, settings: &Settings, ranks: &'a dyn Communicator) -> Option<Self> {
        phase(Phase::Factor, || Self::factor(gram, settings, ranks))
    }

    fn factor(gram: &Gram, settings: &Settings, ranks: &'a dyn Communicator) -> Option<Self> {
        let factor = InverseFactor::new(gram, settings.damping, ranks)?;
        let needed = settings.refit > 0 || settings.solver == Solver::Admm;
        let hessian = needed.then(|| factor.hessian(gram));
        let admm = match (settings.solver, &hessian) {
            (Solver::Admm, Some(h)) => Some(admm::Factor::new(h, ranks)?),
            _ => None,
        };
        Some(Problem { factor, hessian, admm, settings: settings.clone(), ranks })
    }

    /// Prunes `w: [d_out, d_in]` in place with the chosen solver; `selection` is that of all rows.
    /// On entry a rank's own rows of `w` suffice; on return all ranks have all rows.
    pub fn prune(&self, w: &mut Matrix, selection: &Selection) {
        self.prune_by(w, |w, products, rows| {
            self.solve(w, products, &selection.of_rows(rows, w.cols));
        });
    }

    /// Prunes this rank's rows `w` with the chosen solver; `products` is their `W H`, if
    /// the problem keeps H.
    pub fn solve(&self, w: &mut Matrix, products: Option<&Matrix>, selection: &Selection) {
        match (&self.admm, products) {
            (Some(factor), Some(products)) => admm::prune(w, products, factor, selection),
            _ => obs::prune(w, &self.factor, selection, &self.settings),
        }
    }

    /// Prunes `w` with `prune`, and refits the kept weights. `prune` receives this rank's
    /// rows, their `W H` if the problem keeps H, and the range of the rows.
    pub fn prune_by(
        &self,
        w: &mut Matrix,
        prune: impl FnOnce(&mut Matrix, Option<&Matrix>, Range<usize>),
    ) {
        let rows = |w: &mut Matrix, rows| {
            let Some(h) = &self.hessian else { return prune(w, None, rows) };
            self.factor.kill(w);
            let products = matmul(w.view(), h.view());
            prune(w, Some(&products), rows);
            refit(w, h, &products, self.settings.refit);
        };
        phase(Phase::Solve, || on_rows(self.ranks, w, rows));
    }
}

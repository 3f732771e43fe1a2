//! The problem every second-order method comes down to, for the linears that
//! share an input with Hessian H:
//!
//! ```text
//! min  tr((Ŵ − W) H (Ŵ − W)ᵀ)      (Ŵ sparse)
//! ```

use super::{
    admm,
    pattern::{Pattern, Scope, Selection},
    refit::refit,
    sparsegpt::{self, Sweep},
};
use crate::linalg::{Gram, InverseFactor, Matrix, matmul, on_rows};
use crate::profile::{Phase, phase};
use crate::ranks::Communicator;
use std::{ops::Range, str::FromStr};

/// Which solver finds mask and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// The optimal-brain-surgeon sweep (SparseGPT).
    Obs,
    /// ADMM with a growing mask (Boža, 2024).
    Admm,
}

impl Solver {
    /// The mask scope it is published with.
    pub fn scope(self) -> Scope {
        match self {
            Solver::Obs => Scope::Block,
            Solver::Admm => Scope::Matrix,
        }
    }
}

/// How the problem is solved.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which solver.
    pub solver: Solver,
    /// Among which weights the mask is chosen.
    pub scope: Scope,
    /// Relative damping of H.
    pub damping: f32,
    /// The OBS sweep's settings.
    pub sweep: Sweep,
    /// Conjugate-gradient steps of masked refit; 0 for none.
    pub refit: usize,
}

impl Default for Options {
    /// SparseGPT's.
    fn default() -> Self {
        Options {
            solver: Solver::Obs,
            scope: Scope::Block,
            damping: 0.01,
            sweep: Sweep { block_size: 128, bits: None },
            refit: 0,
        }
    }
}

/// A Hessian, made ready for its linears.
pub struct Problem<'r> {
    /// The inverse factor of the damped H.
    pub factor: InverseFactor,
    /// H itself, where refit or ADMM need it.
    hessian: Option<Matrix>,
    admm: Option<admm::Factor>,
    options: Options,
    ranks: &'r dyn Communicator,
}

impl<'r> Problem<'r> {
    /// Makes `gram` ready; `None` where it is not finite.
    pub fn new(gram: &Gram, options: Options, ranks: &'r dyn Communicator) -> Option<Self> {
        phase(Phase::Factor, || Self::of(gram, options, ranks))
    }

    fn of(gram: &Gram, options: Options, ranks: &'r dyn Communicator) -> Option<Self> {
        let factor = InverseFactor::new(gram, options.damping, ranks)?;
        let needed = options.refit > 0 || options.solver == Solver::Admm;
        let hessian = needed.then(|| factor.hessian(gram));
        let admm = match (options.solver, &hessian) {
            (Solver::Admm, Some(h)) => Some(admm::Factor::new(h, ranks)?),
            _ => None,
        };
        Some(Problem { factor, hessian, admm, options, ranks })
    }

    /// Prunes `w: [d_out, d_in]` in place with the solver chosen; see
    /// [`Selection`] for `row_weights`. Of `w` as it was, each rank needs its own
    /// rows only.
    pub fn prune(&self, w: &mut Matrix, pattern: Pattern, row_weights: Option<&[f32]>) {
        let Options { scope, sweep, .. } = self.options;
        self.prune_by(w, |w, b, rows| {
            let row_weights = row_weights.map(|weights| &weights[rows]);
            let selection = Selection { pattern, scope, row_weights, ranks: self.ranks };
            match (&self.admm, b) {
                (Some(factor), Some(b)) => admm::prune(w, b, factor, &selection),
                _ => sparsegpt::prune(w, &self.factor, &selection, sweep),
            }
        });
    }

    /// Prunes `w` with `prune`, and refits what it keeps. `prune` is given this
    /// rank's rows, `W H` of them where there is an H, and which they are.
    pub fn prune_by(
        &self,
        w: &mut Matrix,
        prune: impl FnOnce(&mut Matrix, Option<&Matrix>, Range<usize>),
    ) {
        let rows = |w: &mut Matrix, rows| {
            let Some(h) = &self.hessian else { return prune(w, None, rows) };
            self.factor.kill(w);
            let b = matmul(w.view(), h.view());
            prune(w, Some(&b), rows);
            refit(w, h, &b, self.options.refit);
        };
        phase(Phase::Solve, || on_rows(self.ranks, w, rows));
    }
}

impl FromStr for Solver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "obs" => Ok(Solver::Obs),
            "admm" => Ok(Solver::Admm),
            _ => Err(format!("unknown solver {text:?}; choose obs or admm")),
        }
    }
}

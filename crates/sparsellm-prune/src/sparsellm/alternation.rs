//! The alternating loop over epochs, and the guard that keeps the best one.

use super::{
    passes::{Pass, Start, a_solver},
    task::{Outcome, Reference, Task},
    updates::Updates,
};
use crate::{
    Problem, Selection,
    hessian::{CholeskyFactor, rows_of},
    record::relative_error,
};
use sparsellm_base::Result;
use sparsellm_model::Linear;
use sparsellm_tensor::Matrix;
use sparsellm_tensor::profile::{Phase, phase};
use std::ops::Range;

/// Relative damping λ/mean(diag G) of the least-squares problems.
const LEAST_SQUARES_DAMPING: f32 = 1e-4;

/// Everything that the loop keeps between epochs.
pub(super) struct Alternation<'a> {
    updates: &'a dyn Updates,
    task: &'a Task<'a>,
    start: Start,
    /// The Hessian of X, which does not change: one factor serves every first linear and epoch.
    problem_x: Problem<'a>,
    least_squares_x: Option<CholeskyFactor>,
    /// The last linear's dense weights, to which the sequential refit is held.
    dense_last: Option<Matrix>,
    /// The weights of each first linear that must stay zero, if any must.
    held_first: Vec<Option<Vec<bool>>>,
    /// The same for the last linear.
    held_last: Option<Vec<bool>>,
    /// The range of this rank's rows of the last linear.
    own: Range<usize>,
    trouble: Trouble,
    errors: Vec<f64>,
    best: Option<Best>,
}

/// The best iterate so far.
struct Best {
    epoch: usize,
    error: f64,
    first: Vec<Matrix>,
    last: Matrix,
}

impl<'a> Alternation<'a> {
    /// Starts with every variable at its dense value. Returns `None` if the inputs are not finite.
    pub fn start(
        updates: &'a dyn Updates,
        first: &[&mut Linear],
        last: &Linear,
        reference: Option<Reference>,
        task: &'a Task<'a>,
    ) -> Result<Option<Self>> {
        let settings = task.settings;
        let mut start =
            phase(Phase::Forward, || Start::new(updates, first, last, reference, task))?;
        let Some(problem_x) = Problem::new(&start.xx, settings, task.ranks) else {
            return Ok(None);
        };
        let least_squares_x = (settings.epochs > 1)
            .then(|| CholeskyFactor::of_gram(&start.xx, LEAST_SQUARES_DAMPING, task.ranks))
            .flatten();
        start.xx.forget();
        let mut trouble = Trouble::new(settings.damping);
        trouble.hessian(FIRST, &problem_x);
        Ok(Some(Alternation {
            updates,
            task,
            start,
            problem_x,
            least_squares_x,
            dense_last: settings.sequential_refit.then(|| last.weight.view().to_matrix()),
            held_first: first.iter().map(|linear| settings.held(&linear.weight)).collect(),
            held_last: settings.held(&last.weight),
            own: rows_of(task.ranks, last.weight.rows),
            trouble,
            errors: Vec::new(),
            best: None,
        }))
    }

    /// Runs the epochs; `ratio` is β/α. Returns `None` if no epoch gave finite weights.
    pub fn run(
        mut self,
        first: &mut [&mut Linear],
        last: &mut Linear,
        ratio: f32,
        observe: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<Option<Outcome>> {
        let epochs = self.task.settings.epochs.max(1);
        for epoch in 1..=epochs {
            let weights = self
                .first_weights(epoch, first)
                .and_then(|()| self.last_weights(epoch, first, last))
                .filter(|()| finite(first, last));
            if weights.is_none() {
                self.trouble.stopped(epoch);
                break;
            }
            let solver = match epoch < epochs {
                true => phase(Phase::A, || a_solver(&last.weight, ratio, self.task.ranks)),
                false => None,
            };
            let error = self.measure(first, last, solver.as_ref())?;
            self.errors.push(error);
            observe(epoch, error)?;
            self.guard(epoch, error, first, last);
            if solver.is_none() {
                if epoch < epochs {
                    self.trouble.stopped(epoch + 1);
                }
                break;
            }
        }
        Ok(self.finish(first, last))
    }

    /// Makes the first linears' next weights. The first epoch prunes the dense weights, later ones
    /// prune `W̄₁ = (z − b₁)ᵀX (XᵀX + λI)⁻¹`. Returns `None` if a Hessian cannot be factored.
    fn first_weights(&mut self, epoch: usize, first: &mut [&mut Linear]) -> Option<()> {
        let d_ff = self.start.sums.aa.dim();
        let rows = rows_of(self.task.ranks, d_ff);
        if epoch > 1 {
            self.trouble.least_squares(FIRST, self.least_squares_x.as_ref()?);
        }
        let rows_and_held = self.start.neuron_weights.iter().zip(&self.held_first);
        for (i, (linear, (weights, held))) in first.iter_mut().zip(rows_and_held).enumerate() {
            let mut w = linear.weight.edit();
            if let (true, Some(factor_x)) = (epoch > 1, &self.least_squares_x) {
                let at = i * d_ff;
                let zx = self.start.sums.zx.rows(at + rows.start..at + rows.end);
                let solved = phase(Phase::Weights, || factor_x.solve_rows(zx.view()));
                w.set_rows(rows.start, &solved);
            }
            let all_rows = self.task.selection(i);
            let row_weights = weights.as_deref().or(all_rows.row_weights);
            let held = held.as_deref();
            self.problem_x.prune(&mut w, &Selection { row_weights, held, ..all_rows });
        }
        Some(())
    }

    /// Makes the last linear's next weights. The first epoch prunes the dense weights, later ones
    /// prune `W̄₂ = (T − b₂)ᵀa (aᵀa + λI)⁻¹`. With the sequential refit every epoch prunes such a
    /// solution, for the a that the pruned first linears actually produce. Returns `None` if a
    /// Hessian cannot be factored.
    fn last_weights(
        &mut self,
        epoch: usize,
        first: &[&mut Linear],
        last: &mut Linear,
    ) -> Option<()> {
        let (settings, ranks) = (self.task.settings, self.task.ranks);
        let Start { target, sums, .. } = &mut self.start;
        if settings.sequential_refit {
            let pass = pass(self.updates, (first, last), target, self.task);
            phase(Phase::Forward, || pass.activations(sums, ranks));
        }
        let ta = sums.ta.rows(self.own.clone());
        let mut w = last.weight.edit();
        if !settings.sequential_refit && epoch > 1 {
            let factor_a = CholeskyFactor::of_gram(&sums.aa, LEAST_SQUARES_DAMPING, ranks)?;
            self.trouble.least_squares(LAST, &factor_a);
            let solved = phase(Phase::Weights, || factor_a.solve_rows(ta.view()));
            w.set_rows(self.own.start, &solved);
        }
        let problem_a = Problem::new(&sums.aa, settings, ranks)?;
        self.trouble.hessian(LAST, &problem_a);
        if let Some(dense) = &self.dense_last {
            let dense = dense.rows(self.own.clone());
            let solve = || problem_a.factor.least_squares(ta.view(), sums.aa.tokens, dense);
            w.set_rows(self.own.start, &phase(Phase::Weights, solve));
        }
        let held = self.held_last.as_deref();
        problem_a.prune(&mut w, &Selection { held, ..self.task.selection(first.len()) });
        Some(())
    }

    /// Measures the true error E. If the a-update's `solver` is given, the same pass makes a and
    /// moves z (and s) for the next epoch.
    fn measure(
        &mut self,
        first: &[&mut Linear],
        last: &Linear,
        solver: Option<&Matrix>,
    ) -> Result<f64> {
        let Start { state, target, sums, norm, .. } = &mut self.start;
        let pass = pass(self.updates, (first, last), target, self.task);
        let error = phase(Phase::Forward, || match solver {
            Some(solver) => pass.update(state, sums, solver, self.task.ranks),
            None => Ok(pass.error(self.task.ranks)),
        })?;
        Ok(relative_error(error, *norm))
    }

    /// The guard: remembers the weights if they are the best so far.
    fn guard(&mut self, epoch: usize, error: f64, first: &[&mut Linear], last: &Linear) {
        if error.is_finite() && self.best.as_ref().is_none_or(|best| error < best.error) {
            let first = first.iter().map(|l| l.weight.view().to_matrix()).collect();
            self.best = Some(Best { epoch, error, first, last: last.weight.view().to_matrix() });
        }
    }

    /// Restores the best weights. Returns `None` if there are none.
    fn finish(self, first: &mut [&mut Linear], last: &mut Linear) -> Option<Outcome> {
        let best = self.best?;
        for (linear, weight) in first.iter_mut().zip(best.first) {
            *linear.weight.edit() = weight;
        }
        *last.weight.edit() = best.last;
        Some(Outcome {
            errors: self.errors,
            kept_epoch: best.epoch,
            damping: self.trouble.damping,
            warnings: self.trouble.warnings,
        })
    }
}

/// Sets up a pass over the calibration tokens with the network's current weights.
fn pass<'a, 'b>(
    updates: &'a dyn Updates,
    (first, last): (&'a [&'b mut Linear], &'a Linear),
    target: &'a Matrix,
    task: &Task<'a>,
) -> Pass<'a, 'b> {
    let (chunk, sequential) = (task.streaming.chunk, task.settings.sequential_refit);
    Pass { updates, first, last, target, x: task.x, chunk, sequential }
}

fn finite(first: &[&mut Linear], last: &Linear) -> bool {
    let finite = |w: &Matrix| w.data.iter().all(|v| v.is_finite());
    finite(&last.weight) && first.iter().all(|l| finite(&l.weight))
}

/// The numerical trouble met in a network, for the report and the user's warnings.
struct Trouble {
    /// The damping that the settings ask for.
    asked: f32,
    /// The largest damping that was needed, for [`FIRST`] and for [`LAST`].
    damping: [f32; 2],
    warnings: Vec<String>,
}

/// The index of the first linears, whose input is X.
const FIRST: usize = 0;
/// The index of the last linear, whose input is a.
const LAST: usize = 1;

impl Trouble {
    fn new(asked: f32) -> Self {
        Trouble { asked, damping: [asked; 2], warnings: Vec::new() }
    }

    fn hessian(&mut self, which: usize, problem: &Problem) {
        let used = problem.factor.damping;
        self.damping[which] = self.damping[which].max(used);
        self.raised(["X", "a"][which], self.asked, used);
    }

    fn least_squares(&mut self, which: usize, factor: &CholeskyFactor) {
        let what = ["X's least squares", "a's least squares"][which];
        self.raised(what, LEAST_SQUARES_DAMPING, factor.damping);
    }

    fn raised(&mut self, what: &str, asked: f32, used: f32) {
        let warning =
            format!("the Hessian of {what} is singular; damping raised from {asked} to {used}");
        if used > asked && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn stopped(&mut self, epoch: usize) {
        self.warnings.push(format!("epoch {epoch} was not finite, and was not run to its end"));
    }
}

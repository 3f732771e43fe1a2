//! The interface of a pruning method.

use crate::{Problem, Selection, Settings};
use sparsellm_tensor::Matrix;

/// The statistics of a linear's inputs `X: [tokens, d_in]` that a method requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// `‖X_j‖²` per feature.
    SquaredNorms,
    /// The Hessian, that is the Gram matrix `XᵀX` scaled and damped, and its factor.
    Gram,
}

/// The statistics of a linear's inputs `X: [tokens, d_in]`, as its method receives them.
///
/// Which fields are filled depends on the method's [`Needs`]. With refit steps in the settings,
/// the pipeline gathers the Gram matrix for every method, and fills all three.
///
/// | `Needs` | `squared_norms` | `problem` | `products` |
/// |---|---|---|---|
/// | `Nothing` | empty | `None` | `None` |
/// | `SquaredNorms` | filled | `None` | `None` |
/// | `Gram` | filled | filled | filled if the solver is ADMM |
pub struct Inputs<'a> {
    /// `‖X_j‖²` per feature, `[d_in]`.
    pub squared_norms: &'a [f32],
    /// The Hessian of the inputs, prepared for solving.
    pub problem: Option<&'a Problem<'a>>,
    /// `W H` for this rank's rows of the weights before pruning, `[rows, d_in]`.
    pub products: Option<&'a Matrix>,
}

/// A pruning method. A built-in one is a file that implements this trait and a line in the
/// registry.
///
/// ```
/// use sparsellm_prune::{Selection, methods::{Inputs, Method}};
/// use sparsellm_tensor::Matrix;
///
/// /// Keeps the first weights of the matrix.
/// struct KeepFirst;
///
/// impl Method for KeepFirst {
///     fn name(&self) -> &'static str {
///         "keep-first"
///     }
///
///     fn prune(&self, w: &mut Matrix, _: &Inputs, selection: &Selection) {
///         let scores = (0..w.data.len()).map(|i| -(i as f32)).collect();
///         selection.prune(w, scores);
///     }
/// }
/// assert_eq!(KeepFirst.defaults().method, "keep-first");
/// ```
pub trait Method: Send + Sync {
    /// Its name in settings, records and on the command line.
    fn name(&self) -> &'static str;

    /// Its default settings.
    fn defaults(&self) -> Settings {
        Settings::published(self.name())
    }

    /// The statistics of a linear's inputs that it requires.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Prunes this rank's rows `w: [rows, d_in]` of a linear in place. `selection` turns
    /// scores into a mask: the weights with the lowest scores are removed, and those that it
    /// [holds](Selection::held) at zero before them.
    fn prune(&self, w: &mut Matrix, inputs: &Inputs, selection: &Selection);

    /// Whether it changes the weights that it keeps.
    fn moves_weights(&self) -> bool {
        false
    }

    /// Whether feed-forward networks are pruned as a whole by SparseLLM's
    /// [alternation](crate::sparsellm). If so, [`prune`](Self::prune) is called for the linears
    /// of attention only, and the settings that belong to SparseLLM apply.
    fn runs_sparsellm(&self) -> bool {
        false
    }
}

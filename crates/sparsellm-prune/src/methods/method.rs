//! What a pruning method is.

use crate::{Problem, Selection, Settings};
use sparsellm_tensor::Matrix;

/// What a method must know of a linear's inputs X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// `‖X_j‖²` per feature.
    SquaredNorms,
    /// The Gram matrix `XᵀX`, and the Hessian's factor.
    Gram,
}

/// What is known of the inputs X of a linear.
pub struct Inputs<'a> {
    /// `‖X_j‖²` per feature, `[d_in]`; empty where the method needs nothing.
    pub squared_norms: &'a [f32],
    /// The Hessian, made ready, where there is one.
    pub problem: Option<&'a Problem<'a>>,
    /// `W H` of the weights before, where the problem has an H.
    pub products: Option<&'a Matrix>,
}

/// A pruning method: a file that implements this, and a line in the registry.
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
    /// Its name, as settings, records and the command line have it.
    fn name(&self) -> &'static str;

    /// Its own settings.
    fn defaults(&self) -> Settings {
        Settings::published(self.name())
    }

    /// What it must know of a linear's inputs.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Prunes this rank's rows `w: [rows, d_in]` of a linear in place. `selection`
    /// chooses a mask by scores, of which the lowest go.
    fn prune(&self, w: &mut Matrix, inputs: &Inputs, selection: &Selection);

    /// Whether it moves the weights that it keeps.
    fn moves_weights(&self) -> bool {
        false
    }

    /// Whether it prunes feed-forward networks as a whole, by SparseLLM; then
    /// [`prune`](Self::prune) is for attention's linears.
    fn is_global(&self) -> bool {
        false
    }
}

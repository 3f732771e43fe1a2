//! How the linears of a model share its sparsity.

mod fisher;
mod knapsack;
mod measured;
mod owl;

pub use measured::measured_tokens;

use super::plan::Plan;
use crate::{Allocation, Pattern, Share};
use sparsellm_base::{Observer, Result};
use sparsellm_tensor::Matrix;
use std::{ops::Range, path::Path};

/// What is asked of each linear of each layer in `range`, in the order of the block's linears. An N:M
/// pattern is the same for all of them; how an unstructured sparsity is shared, the settings say.
/// `hidden` is this rank's part of the calibration text's embeddings; temporary files go to
/// `folder`.
///
/// # Errors
/// If weights cannot be read or are not finite, a temporary file cannot be written, or the observer
/// returns an error.
pub fn allocate(
    plan: &Plan,
    hidden: &Matrix,
    range: &Range<usize>,
    folder: &Path,
    observe: &mut Observer,
) -> Result<Vec<Vec<Share>>> {
    let settings = plan.settings;
    let each = |patterns: Vec<Pattern>| {
        let layers = range.clone().zip(patterns);
        layers
            .map(|(index, pattern)| {
                let linears = plan.model.outline(index)?.linears().len();
                Ok(vec![Share { pattern, row_weights: None }; linears])
            })
            .collect()
    };
    let (Pattern::Unstructured(rho), Some(calibration)) = (settings.pattern, plan.calibration)
    else {
        return each(vec![settings.pattern; range.len()]);
    };
    match settings.allocation {
        Allocation::Uniform => each(vec![settings.pattern; range.len()]),
        Allocation::Owl(lambda) => {
            let lambda = f64::from(lambda);
            let sparsities =
                owl::sparsities_of(plan, calibration, hidden, range, (rho, lambda), observe)?;
            each(sparsities.into_iter().map(Pattern::Unstructured).collect())
        }
        Allocation::Measured => {
            measured::shares(plan, &calibration.segments, range, rho, folder, observe)
        }
    }
}

//! The pruning methods, a file each.

mod method;
mod registry;

pub use method::{Inputs, Method, Needs};
pub use registry::{METHODS, find_method};
pub use registry::{
    magnitude::Magnitude, sparsegpt::SparseGpt, sparsellm::SparseLlm,
    sparsellm_plus::SparseLlmPlus, wanda::Wanda,
};

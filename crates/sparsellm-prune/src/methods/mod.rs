//! The pruning methods, each in its own file.

mod method;
mod registry;

pub use method::{Inputs, Method, Needs};
pub use registry::*;

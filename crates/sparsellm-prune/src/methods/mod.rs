//! The pruning methods, a file each.

mod method;
mod registry;

pub use method::{Inputs, Method, Needs};
pub use registry::*;

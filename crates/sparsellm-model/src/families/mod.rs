//! The model families, a file each.

mod registry;

pub(crate) use registry::find_family;
pub use registry::{FAMILIES, Registration, supported_architecture};

//! The model families, a file each.

mod registration;
mod registry;

pub use registration::Registration;
pub(crate) use registry::find_family;
pub use registry::{FAMILIES, supported_architecture};

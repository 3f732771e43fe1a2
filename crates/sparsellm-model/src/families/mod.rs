//! The model families, a file each.

mod registration;
mod registry;

pub(crate) use registration::Tables;
pub use registration::{Opening, Registration};
pub(crate) use registry::architecture;
pub use registry::{FAMILIES, open_family, supported_model_type};

//! How a family is registered.

use crate::{Config, Family};
use sparsellm_base::Result;

/// Makes a family of a configuration; it can ask which tensors there are.
pub(crate) type Open = fn(&str, &Config, &dyn Fn(&str) -> bool) -> Result<Box<dyn Family>>;

/// What the registry knows of a family.
pub struct Registration {
    /// The architectures of the family, and the `model_type` of each, as
    /// `config.json` names them.
    pub architectures: &'static [(&'static str, &'static str)],
    pub(crate) open: Open,
}

//! The registry of methods.

use super::method::Method;
use sparsellm_base::{Result, usage_error};

/// Declares the methods' files as modules, and lists the methods.
macro_rules! register {
    ($($file:ident in $path:literal: $method:ident),+ $(,)?) => {
        $(#[path = $path] mod $file;)+
        $(pub use $file::$method;)+

        /// Every method, simplest first.
        pub static METHODS: &[&dyn Method] = &[$(&$file::$method),+];
    };
}

register! {
    magnitude in "magnitude.rs": Magnitude,
    wanda in "wanda.rs": Wanda,
    sparsegpt in "sparsegpt.rs": SparseGpt,
    sparsellm in "sparsellm.rs": SparseLlm,
    sparsellm_plus in "sparsellm_plus.rs": SparseLlmPlus,
}

/// Finds a method by its name.
///
/// # Errors
/// If no method has this name.
pub fn find_method(name: &str) -> Result<&'static dyn Method> {
    match METHODS.iter().find(|method| method.name() == name) {
        Some(method) => Ok(*method),
        None => {
            let names: Vec<&str> = METHODS.iter().map(|method| method.name()).collect();
            usage_error!("unknown method {name:?}; choose one of {}", names.join(", "))
        }
    }
}

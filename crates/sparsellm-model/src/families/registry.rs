//! The registry of families.

use super::registration::Registration;
use crate::{Config, Family};
use serde_json::Value;
use sparsellm_base::{Result, input_error};
use std::path::Path;

/// Declares the families' files, and lists what they register.
macro_rules! register {
    ($($family:ident in $file:literal),+ $(,)?) => {
        $(#[path = $file] mod $family;)+

        /// Every family that is supported.
        pub const FAMILIES: &[Registration] = &[$($family::FAMILY),+];
    };
}

register! {
    opt in "opt.rs",
    llama in "llama.rs",
    gemma2 in "gemma2.rs",
    gpt_neox in "gpt_neox.rs",
}

/// Every architecture with its `model_type`.
fn architectures() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    FAMILIES.iter().flat_map(|family| family.architectures)
}

/// `architectures[0]` in the `config.json` at `path`, or what its `model_type`
/// implies.
///
/// # Errors
/// Where it names none, or one that is not supported.
pub fn supported_architecture(config: &Value, path: &Path) -> Result<String> {
    let named = config.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
    let kind = config.get("model_type").and_then(Value::as_str);
    let implied = architectures().find(|(_, model_type)| Some(*model_type) == kind);
    let Some(name) = named.or(implied.map(|(name, _)| *name)) else {
        return input_error!(
            "{}: config.json names no architecture (\"architectures\": [..])",
            path.display()
        );
    };
    if architectures().any(|(known, _)| *known == name) {
        return Ok(name.to_string());
    }
    let known: Vec<&str> = architectures().map(|(name, _)| *name).collect();
    input_error!(
        "{}: architecture {name} is not supported; supported are {}",
        path.display(),
        known.join(", ")
    )
}

/// The family of an architecture that is supported.
pub(crate) fn find_family(
    architecture: &str,
    config: &Config,
    has_tensor: &dyn Fn(&str) -> bool,
) -> Result<Box<dyn Family>> {
    let has =
        |family: &&Registration| family.architectures.iter().any(|(name, _)| *name == architecture);
    match FAMILIES.iter().find(has) {
        Some(family) => (family.open)(architecture, config, has_tensor),
        None => config.fail(format!("architecture {architecture} is not supported")),
    }
}

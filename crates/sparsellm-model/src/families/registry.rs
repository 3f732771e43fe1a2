//! The registry of families.

use super::registration::{Opening, Registration};
use crate::Family;
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
    phi3 in "phi3.rs",
}

/// The `model_type` of the configuration `json` at `path` or, if there is none, that of its
/// first architecture.
///
/// # Errors
/// If neither is named, or the one that is named is not supported.
pub fn supported_model_type(json: &Value, path: &Path) -> Result<&'static str> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_string);
    let model_type = text(json.get("model_type"));
    let architecture = text(json.get("architectures").and_then(|names| names.get(0)));
    let members = || FAMILIES.iter().flat_map(|family| family.members);
    let found = match &model_type {
        Some(name) => members().find(|(_, model_type)| model_type == name),
        None => members().find(|(known, _)| Some(*known) == architecture.as_deref()),
    };
    if let Some((_, model_type)) = found {
        return Ok(model_type);
    }
    let known: Vec<&str> = members().map(|(_, model_type)| *model_type).collect();
    let (path, known) = (path.display(), known.join(", "));
    match (model_type, architecture) {
        (None, None) => input_error!(
            "{path}: config.json names neither a \"model_type\" nor an architecture (\"architectures\": [..])"
        ),
        (Some(name), Some(architecture)) => input_error!(
            "{path}: model_type {name} ({architecture}) is not supported; supported are {known}"
        ),
        (Some(name), None) => {
            input_error!("{path}: model_type {name} is not supported; supported are {known}")
        }
        (None, Some(name)) => input_error!(
            "{path}: config.json has no model_type, and its architecture {name} is not supported; supported types are {known}"
        ),
    }
}

/// Opens the family of a checkpoint.
///
/// # Errors
/// If the configuration asks for what the family does not support.
pub fn open_family(opening: &Opening) -> Result<Box<dyn Family>> {
    let config = opening.config;
    // Not fields of any class, but looked for by transformers in every configuration.
    config.only("is_causal", true)?;
    config.only("per_layer_config", Value::Null)?;
    config.only("transformers_weights", Value::Null)?;
    let is_member = |family: &&Registration| {
        family.members.iter().any(|(_, model_type)| *model_type == opening.model_type)
    };
    match FAMILIES.iter().find(is_member) {
        Some(family) => (family.open)(opening),
        None => config.fail(format!("model_type {} is not supported", opening.model_type)),
    }
}

/// The architecture that a configuration names first or, if it names none, that of the
/// causal language model of its `model_type`.
pub(crate) fn architecture(json: &Value, model_type: &str) -> String {
    let named = json.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let implied = || {
        let mut members = FAMILIES.iter().flat_map(|family| family.members);
        members.find(|(_, known)| *known == model_type).map(|(architecture, _)| *architecture)
    };
    named.or_else(implied).unwrap_or_default().to_string()
}

//! Recognizes checkpoints whose weights are quantized already. They cannot be pruned, and
//! what else a reader would find wrong with them (a tensor of another name or shape, an
//! unknown type) would only mislead.

use serde_json::Value;
use sparsellm_base::{Result, input_error};
use std::path::Path;

/// The parts of `config.json` that may describe the text model of a multimodal one.
const TEXT_MODELS: [&str; 4] = ["text_config", "language_config", "llm_config", "thinker_config"];

/// The keys under which a quantization is described, and the method that each implies if the
/// description names none.
const KEYS: [(&str, &str); 3] = [
    ("quantization_config", "a method that is not named"),
    ("compression_config", "compressed-tensors"),
    ("quantization", "mlx"),
];

/// Checks that the weights of the model at `path` are not quantized, as far as its
/// configuration says.
///
/// # Errors
/// Returns an error that names the method if they are.
pub fn refuse_quantized(config: &Value, path: &Path) -> Result<()> {
    let parts = TEXT_MODELS.iter().filter_map(|part| config.get(part));
    let found = [config].into_iter().chain(parts).find_map(quantization);
    let Some((key, method)) = found else { return Ok(()) };
    input_error!(
        "{}: the checkpoint is quantized already, by {method} (\"{key}\" in config.json); use the original checkpoint, which is not quantized",
        path.display()
    )
}

/// The key that describes a quantization, and the method.
fn quantization(config: &Value) -> Option<(&'static str, &str)> {
    KEYS.iter().find_map(|(key, implied)| {
        let described = config.get(key)?.as_object().filter(|object| !object.is_empty())?;
        let on = |name: &str| described.get(name).and_then(Value::as_bool) == Some(true);
        let named = ["quant_method", "quant_algo"].iter().find_map(|name| described.get(*name));
        let method = match named.and_then(Value::as_str) {
            Some(method) => method,
            // Configurations from before methods were named, as transformers reads them.
            None if on("load_in_4bit") || on("load_in_8bit") => "bitsandbytes",
            // MLX writes its settings under two of the keys.
            None if described.contains_key("group_size") && described.contains_key("bits") => "mlx",
            None => implied,
        };
        Some((*key, method))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_method_is_named_wherever_it_is_described() {
        let told = |config: Value| {
            let refused = refuse_quantized(&config, Path::new("model"));
            refused.err().map(|error| error.to_string()).unwrap_or_default()
        };
        for method in ["gptq", "awq", "fp8", "mxfp4", "torchao", "eetq", "hqq", "new"] {
            let said = told(json!({"quantization_config": {"quant_method": method}}));
            assert!(said.contains(&format!("by {method} ")) && said.contains("original"), "{said}");
        }
        for (config, method) in [
            (json!({"quantization_config": {"load_in_8bit": true}}), "bitsandbytes"),
            (json!({"quantization": {"group_size": 64, "bits": 4}}), "mlx"),
            (json!({"quantization_config": {"group_size": 64, "bits": 4}}), "mlx"),
            (json!({"quantization": {"quant_algo": "FP8"}}), "FP8"),
            (json!({"compression_config": {"format": "int-quantized"}}), "compressed-tensors"),
            (json!({"text_config": {"quantization_config": {"quant_method": "awq"}}}), "awq"),
            (json!({"quantization_config": {"bits": 4}}), "a method that is not named"),
        ] {
            let said = told(config);
            assert!(said.starts_with("model: ") && said.contains(method), "{said}");
        }
        for config in [json!({}), json!({"quantization_config": null}), json!([1])] {
            assert_eq!(told(config), "");
        }
    }
}

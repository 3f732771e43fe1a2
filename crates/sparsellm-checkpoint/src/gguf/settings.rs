//! What an architecture's `config.json` is made of: the metadata under its keys, and the
//! dimensions.

use serde_json::{Value, json};

use super::dimensions::Dimensions;
use super::metadata::Keys;
use super::rope;
use sparsellm_base::{Result, input_error};

/// The settings of one model.
pub(super) struct Settings<'a> {
    pub keys: Keys<'a>,
    pub dimensions: &'a Dimensions,
    /// `rope_freqs.weight`: the divisor of each rotary frequency.
    pub rope_factors: Option<&'a [f32]>,
    /// Whether the first layer has a tensor of that name, without the layer's prefix.
    pub first_layer_has: &'a dyn Fn(&str) -> bool,
}

impl Settings<'_> {
    /// The file, for error messages.
    pub fn file(&self) -> &str {
        self.keys.file()
    }

    pub fn dimensions(&self) -> &Dimensions {
        self.dimensions
    }

    pub fn number(&self, key: &str) -> Result<Option<usize>> {
        self.keys.number(key)
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.keys.float(key)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.keys.flag(key)
    }

    pub fn first_layer_has(&self, name: &str) -> bool {
        (self.first_layer_has)(name)
    }

    /// A number above 0.
    pub fn positive(&self, key: &str, default: Option<f64>) -> Result<f64> {
        let value = self.keys.required(key, self.float(key)?.or(default))?;
        if value > 0.0 {
            return Ok(value);
        }
        input_error!("{}: `{}` is {value}", self.file(), self.keys.full(key))
    }

    /// The base of the rotary frequencies; 10,000 in models that do not say.
    pub fn rope_theta(&self) -> Result<f64> {
        self.positive("rope.freq_base", Some(10_000.0))
    }

    /// Adds to `fields` those of all architectures with RMS norms, grouped-query attention and
    /// rotary positions on whole heads.
    pub fn with_rotary_fields(&self, mut fields: Value) -> Result<Value> {
        let d = self.dimensions;
        let rotated = self.number("rope.dimension_count")?.unwrap_or(d.head_dim);
        if rotated != d.head_dim {
            return input_error!(
                "{}: `{}` is {rotated}, but a head has {}",
                self.file(),
                self.keys.full("rope.dimension_count"),
                d.head_dim
            );
        }
        let theta = self.rope_theta()?;
        fields["head_dim"] = json!(d.head_dim);
        fields["num_key_value_heads"] = json!(d.kv_heads);
        fields["rms_norm_eps"] = json!(self.positive("attention.layer_norm_rms_epsilon", None)?);
        fields["rope_scaling"] = self.rope_scaling(theta)?;
        fields["rope_theta"] = json!(theta);
        Ok(fields)
    }

    /// `rope_scaling`: null, linear or YaRN if the metadata say so, or llama3 as recovered
    /// from the table that llama.cpp bakes it into.
    pub fn rope_scaling(&self, theta: f64) -> Result<Value> {
        let file = self.file();
        let kind = self.keys.text("rope.scaling.type")?;
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.float("rope.scale_linear")?,
        };
        let scaling = match (kind, factor) {
            (Some("none"), _) | (None, None | Some(1.0)) => Value::Null,
            (Some("linear") | None, Some(factor)) if factor >= 1.0 => {
                json!({ "rope_type": "linear", "factor": factor })
            }
            (Some("yarn"), Some(factor)) if factor >= 1.0 => self.yarn(factor)?,
            _ => {
                return input_error!(
                    "{file}: position scaling of type `{}` with factor {factor:?} is not read",
                    kind.unwrap_or("none given")
                );
            }
        };
        let Some(table) = self.rope_factors else { return Ok(scaling) };
        if !scaling.is_null() {
            return input_error!(
                "{file}: positions are scaled by the metadata and by `rope_freqs` at once"
            );
        }
        match rope::llama3(table, self.dimensions.head_dim, theta) {
            Some(scaling) => Ok(scaling),
            None => input_error!(
                "{file}: `rope_freqs.weight` is not Llama 3's position scaling; \
                 use the model's Hugging Face checkpoint"
            ),
        }
    }

    /// YaRN's scaling, in transformers' terms.
    fn yarn(&self, factor: f64) -> Result<Value> {
        const OTHERS: [&str; 4] =
            ["attn_factor", "yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor"];
        for key in OTHERS.map(|key| format!("rope.scaling.{key}")) {
            if self.float(&key)?.is_some() {
                return input_error!("{}: `{}` is not read", self.file(), self.keys.full(&key));
            }
        }
        let mut scaling = json!({ "rope_type": "yarn", "factor": factor });
        if let Some(original) = self.number("rope.scaling.original_context_length")? {
            scaling["original_max_position_embeddings"] = json!(original);
        }
        for key in ["beta_fast", "beta_slow"] {
            if let Some(beta) = self.float(&format!("rope.scaling.yarn_{key}"))? {
                scaling[key] = json!(beta);
            }
        }
        Ok(scaling)
    }
}

//! Rotary position embeddings (Su et al., *RoFormer*, 2021), in Hugging Face's
//! layout: feature i of a head is rotated with feature i + head_dim/2.

use crate::error::{Result, invalid};
use serde_json::Value;

/// Per-feature rotation frequencies, in radians per position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    inv_freq: Vec<f32>,
}

impl Rope {
    /// Reads `rope_theta` and `rope_scaling` (or transformers 5's
    /// `rope_parameters`) from a configuration.
    ///
    /// # Errors
    /// On a scaling this project does not implement (only none, `linear` and
    /// `llama3` are), since ignoring it would give wrong numbers.
    pub fn from_config(config: &Value, head_dim: usize) -> Result<Rope> {
        let scaling = ["rope_parameters", "rope_scaling"]
            .iter()
            .filter_map(|key| config.get(key))
            .find(|value| value.is_object());
        let number = |key: &str| scaling.and_then(|s| s.get(key)).and_then(Value::as_f64);
        let theta = [Some(config), scaling]
            .into_iter()
            .flatten()
            .find_map(|value| value.get("rope_theta").filter(|theta| !theta.is_null()));
        let theta = match theta {
            None => 10_000.0,
            Some(value) => match value.as_f64().filter(|v| *v > 0.0) {
                Some(theta) => theta,
                None => {
                    return invalid!(
                        "config.json: \"rope_theta\" is {value}; a positive number was expected"
                    );
                }
            },
        };
        let partial = config
            .get("partial_rotary_factor")
            .and_then(Value::as_f64)
            .or_else(|| number("partial_rotary_factor"))
            .unwrap_or(1.0);
        if partial != 1.0 {
            return invalid!("config.json: partial_rotary_factor {partial} is not supported");
        }
        let mut inv_freq: Vec<f64> =
            (0..head_dim / 2).map(|i| theta.powf(-(2.0 * i as f64) / head_dim as f64)).collect();
        let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type")));
        let need = |key: &str| match number(key) {
            Some(v) if v.is_finite() && v > 0.0 => Ok(v),
            _ => invalid!("config.json: rope scaling needs a positive {key}"),
        };
        match kind.and_then(Value::as_str) {
            None | Some("default") => {}
            Some("linear") => {
                let factor = need("factor")?;
                inv_freq.iter_mut().for_each(|f| *f /= factor);
            }
            Some("llama3") => llama3(
                &mut inv_freq,
                need("factor")?,
                need("low_freq_factor")?,
                need("high_freq_factor")?,
                need("original_max_position_embeddings")?,
            ),
            Some(other) => {
                return invalid!(
                    "config.json: rope scaling {other:?} is not supported (default, linear and llama3 are)"
                );
            }
        }
        Ok(Rope { inv_freq: inv_freq.into_iter().map(|f| f as f32).collect() })
    }

    /// Cosine and sine for each position below `length`: per position the
    /// head_dim/2 cosines, then as many sines.
    pub fn table(&self, length: usize) -> Vec<f32> {
        let mut table = Vec::with_capacity(length * self.inv_freq.len() * 2);
        for position in 0..length {
            let angle = |f: &f32| position as f32 * f;
            table.extend(self.inv_freq.iter().map(|f| angle(f).cos()));
            table.extend(self.inv_freq.iter().map(|f| angle(f).sin()));
        }
        table
    }
}

/// LLaMA 3.1's scaling: long wavelengths are stretched by `factor`, short ones
/// kept, those between interpolated.
fn llama3(inv_freq: &mut [f64], factor: f64, low: f64, high: f64, original: f64) {
    for f in inv_freq {
        let wavelength = std::f64::consts::TAU / *f;
        if wavelength > original / low {
            *f /= factor;
        } else if wavelength >= original / high {
            let smooth = (original / wavelength - low) / (high - low);
            *f = (1.0 - smooth) * *f / factor + smooth * *f;
        }
    }
}

/// Rotates one head's features at one position: `cos_sin` is that position's
/// part of [`Rope::table`].
pub fn rotate(head: &mut [f32], cos_sin: &[f32]) {
    let half = head.len() / 2;
    let (first, second) = head.split_at_mut(half);
    let (cos, sin) = cos_sin.split_at(half);
    for i in 0..half {
        let (a, b) = (first[i], second[i]);
        first[i] = a * cos[i] - b * sin[i];
        second[i] = b * cos[i] + a * sin[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_null_theta_hides_no_other() {
        let nested = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 500_000.0}});
        let plain = json!({"rope_theta": 500_000.0});
        let of = |config: &Value| Rope::from_config(config, 8).unwrap().inv_freq;
        assert_eq!(of(&nested), of(&plain));
        assert!(Rope::from_config(&json!({"rope_theta": "500000"}), 8).is_err());
    }
}

//! Rotary position embeddings (Su et al., *RoFormer*, 2021), in Hugging Face's
//! layout: of the r features of a head that are rotated, feature i is rotated with
//! feature i + r/2.

use crate::Config;
use serde_json::Value;
use sparsellm_base::{Result, input_error};
use std::sync::{Arc, PoisonError, RwLock};

/// Per-feature rotation frequencies, in radians per position, and what was made of
/// them: the layers of a model share it.
#[derive(Debug)]
pub struct Rope {
    inv_freq: Vec<f32>,
    /// Cosines and sines of the positions that were asked for so far.
    table: RwLock<Arc<Vec<f32>>>,
}

/// A family's defaults for what the configuration leaves out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeDefaults {
    /// The keys that the base θ may have at the top of the configuration.
    pub theta_keys: &'static [&'static str],
    /// The key of the fraction of a head's features that are rotated, and its value.
    pub partial: (&'static str, f64),
}

impl RopeDefaults {
    /// LLaMA's: `rope_theta`, all features.
    pub const LLAMA: Self =
        RopeDefaults { theta_keys: &["rope_theta"], partial: ("partial_rotary_factor", 1.0) };
}

impl Rope {
    /// Rotates `features` of each head, with the base `theta`:
    /// `θ^(−2i/r)` for the i-th pair.
    pub fn new(theta: f64, features: usize) -> Rope {
        Rope::from_frequencies(frequencies(theta, features))
    }

    fn from_frequencies(inv_freq: Vec<f64>) -> Rope {
        let inv_freq = inv_freq.into_iter().map(|f| f as f32).collect();
        Rope { inv_freq, table: RwLock::default() }
    }

    /// Reads θ, the rotated fraction and the scaling from a configuration:
    /// transformers 5's `rope_parameters`, or `rope_scaling` with keys at the top.
    ///
    /// # Errors
    /// On a scaling that this project does not implement (only none, `linear` and
    /// `llama3` are), since ignoring it would give wrong numbers.
    pub(crate) fn from_config(
        config: &Config,
        head_dim: usize,
        defaults: RopeDefaults,
    ) -> Result<Rope> {
        let json = config.json();
        let scaling = ["rope_parameters", "rope_scaling"]
            .iter()
            .filter_map(|key| json.get(key))
            .find(|value| value.is_object());
        let number = |key: &str| scaling.and_then(|s| s.get(key)).and_then(Value::as_f64);
        let top = defaults.theta_keys.iter().filter_map(|key| json.get(key));
        let nested = scaling.and_then(|s| s.get("rope_theta"));
        let theta = match top.chain(nested).find(|theta| !theta.is_null()) {
            None => 10_000.0,
            Some(value) => match value.as_f64().filter(|v| *v > 0.0) {
                Some(theta) => theta,
                None => {
                    return input_error!(
                        "config.json: \"rope_theta\" is {value}; a positive number was expected"
                    );
                }
            },
        };
        let (key, default) = defaults.partial;
        let partial = number("partial_rotary_factor");
        let partial = partial.or_else(|| json.get(key).and_then(Value::as_f64)).unwrap_or(default);
        let features = (head_dim as f64 * partial) as usize;
        if !(partial > 0.0 && partial <= 1.0 && features >= 2 && features.is_multiple_of(2)) {
            return config.fail(format!(
                "{key} {partial} rotates {features} of a head's {head_dim} features, which must be an even number of at least 2"
            ));
        }
        let mut inv_freq = frequencies(theta, features);
        scale(&mut inv_freq, scaling)?;
        Ok(Rope::from_frequencies(inv_freq))
    }

    /// How many features of a head are rotated: the first ones.
    pub fn features(&self) -> usize {
        2 * self.inv_freq.len()
    }

    /// Cosine and sine for each position below `length`, or for more: per position
    /// r/2 cosines, then as many sines. It is made once, and made longer when needed.
    pub fn table(&self, length: usize) -> Arc<Vec<f32>> {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.len() >= length * self.features() {
            return known;
        }
        let mut table = Vec::with_capacity(length * self.features());
        for position in 0..length {
            let angle = |f: &f32| position as f32 * f;
            table.extend(self.inv_freq.iter().map(|f| angle(f).cos()));
            table.extend(self.inv_freq.iter().map(|f| angle(f).sin()));
        }
        let table = Arc::new(table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }

    /// Rotates the features of one head at one position: `cos_sin` is that
    /// position's part of [`Rope::table`].
    pub fn rotate(features: &mut [f32], cos_sin: &[f32]) {
        let half = features.len() / 2;
        let (first, second) = features.split_at_mut(half);
        let (cos, sin) = cos_sin.split_at(half);
        for i in 0..half {
            let (a, b) = (first[i], second[i]);
            first[i] = a * cos[i] - b * sin[i];
            second[i] = b * cos[i] + a * sin[i];
        }
    }
}

/// `θ^(−2i/r)` for each of r/2 pairs of features.
fn frequencies(theta: f64, features: usize) -> Vec<f64> {
    (0..features / 2).map(|i| theta.powf(-(2.0 * i as f64) / features as f64)).collect()
}

/// Stretches the frequencies as the configuration's `scaling` says.
fn scale(inv_freq: &mut [f64], scaling: Option<&Value>) -> Result<()> {
    let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type")));
    let need = |key: &str| match scaling.and_then(|s| s.get(key)).and_then(Value::as_f64) {
        Some(v) if v.is_finite() && v > 0.0 => Ok(v),
        _ => input_error!("config.json: rope scaling needs a positive {key}"),
    };
    match kind.and_then(Value::as_str) {
        None | Some("default") => {}
        Some("linear") => {
            let factor = need("factor")?;
            inv_freq.iter_mut().for_each(|f| *f /= factor);
        }
        Some("llama3") => llama3(
            inv_freq,
            need("factor")?,
            need("low_freq_factor")?,
            need("high_freq_factor")?,
            need("original_max_position_embeddings")?,
        ),
        Some(other) => {
            return input_error!(
                "config.json: rope scaling {other:?} is not supported (default, linear and llama3 are)"
            );
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn a_null_theta_hides_no_other() {
        let of = |json: Value| {
            let config = Config::from_json(&json, Path::new("config.json"));
            Rope::from_config(&config, 8, RopeDefaults::LLAMA).map(|rope| rope.inv_freq)
        };
        let nested = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 500_000.0}});
        let plain = json!({"rope_theta": 500_000.0});
        assert_eq!(of(nested).unwrap(), of(plain).unwrap());
        assert!(of(json!({"rope_theta": "500000"})).is_err());
    }

    #[test]
    fn a_table_grows_and_keeps_its_rows() {
        let rope = Rope::new(100.0, 4);
        let (short, long) = (rope.table(3), rope.table(9));
        assert_eq!(short[..], long[..short.len()]);
        assert_eq!(rope.table(2).len(), long.len());
    }
}

//! Reads a rotation from `config.json` as transformers does.

use super::{
    Rope,
    frequencies::{Frequencies, Scaling, Yarn},
};
use crate::Config;
use serde_json::{Map, Value};
use sparsellm_base::Result;

/// What transformers' configuration class of a family calls the fields that stood at
/// the top of `config.json` before `rope_parameters` held them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeKeys {
    /// The base θ.
    pub theta: &'static str,
    /// The fraction of a head's features that are rotated, and its default. Families
    /// without one rotate whole heads.
    pub partial: Option<(&'static str, f64)>,
    /// The default of `original_max_position_embeddings` at the top, in classes that have it.
    pub original: Option<usize>,
    /// Older names of kinds of scaling, each with today's.
    pub aliases: &'static [(&'static str, &'static str)],
}

impl RopeKeys {
    /// LLaMA's: `rope_theta`, whole heads.
    pub const LLAMA: Self =
        RopeKeys { theta: "rope_theta", partial: None, original: None, aliases: &[] };
}

impl Rope {
    /// Reads the base, the rotated fraction and the scaling: from `rope_scaling`, which
    /// wins, or else from `rope_parameters`; what neither says stands at the top of the
    /// configuration or is a default. `positions` is the model's
    /// `max_position_embeddings`.
    ///
    /// # Errors
    /// If a value is missing or impossible, or if the kind of scaling is not one of
    /// transformers': ignoring it would give wrong numbers.
    pub(crate) fn from_config(
        config: &Config,
        head_dim: usize,
        positions: usize,
        keys: RopeKeys,
    ) -> Result<Rope> {
        // Always asked for, so that no class's default of it is overlooked.
        let original = config.optional_size("original_max_position_embeddings", keys.original)?;
        let reader = Reader { config, parameters: parameters(config)?, positions, original };
        let theta = match reader.positive("rope_theta")? {
            Some(theta) => theta,
            None => config.optional_positive(keys.theta, Some(10_000.0))?.unwrap_or(10_000.0),
        };
        let given = reader.kind()?;
        let alias = keys.aliases.iter().find(|(old, _)| *old == given);
        let kind = alias.map_or(given.as_str(), |(_, today)| today);
        let features = reader.features(kind, head_dim, keys.partial)?;
        let scaling = reader.scaling(kind, features)?;
        Ok(Rope::from(Frequencies { theta, features, scaling }))
    }
}

/// The object that describes the rotation, if there is one.
fn parameters<'a>(config: &Config<'a>) -> Result<Option<&'a Map<String, Value>>> {
    let object = |key: &str| match config.optional(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(value) => config.fail(format!("\"{key}\" is {value}; an object was expected")),
    };
    let (scaling, parameters) = (object("rope_scaling")?, object("rope_parameters")?);
    Ok(scaling.filter(|object| !object.is_empty()).or(parameters))
}

/// The parts of a configuration that a rotation is read from.
struct Reader<'a> {
    config: &'a Config<'a>,
    parameters: Option<&'a Map<String, Value>>,
    /// `max_position_embeddings`.
    positions: usize,
    /// `original_max_position_embeddings` at the top.
    original: Option<usize>,
}

impl Reader<'_> {
    /// A parameter that is present and not null.
    fn value(&self, key: &str) -> Option<&Value> {
        self.parameters.and_then(|p| p.get(key)).filter(|value| !value.is_null())
    }

    /// A number above 0, if there is one.
    fn positive(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
            Some(number) => Ok(Some(number)),
            None => self.config.fail(format!(
                "\"{key}\" of the rotary embedding is {value}; a positive number was expected"
            )),
        }
    }

    /// A number above 0 that this kind of scaling cannot do without.
    fn needed(&self, key: &str, kind: &str) -> Result<f64> {
        match self.positive(key)? {
            Some(number) => Ok(number),
            None => self.config.fail(format!("rope_type {kind} needs a \"{key}\"")),
        }
    }

    /// The kind of scaling: `rope_type`, which was once called `type`.
    fn kind(&self) -> Result<String> {
        if let Some((key, _)) = self.parameters.into_iter().flatten().find(|(_, v)| v.is_object()) {
            return self.config.fail(format!(
                "rotary parameters for each kind of layer ({key}) are not supported for this model_type"
            ));
        }
        match self.value("rope_type").or_else(|| self.value("type")) {
            None => Ok("default".into()),
            Some(Value::String(kind)) => Ok(kind.clone()),
            Some(other) => self.config.fail(format!("rope_type is {other}; a name was expected")),
        }
    }

    /// How many features of a head are rotated.
    fn features(&self, kind: &str, head_dim: usize, partial: Option<(&str, f64)>) -> Result<usize> {
        let given = self.positive("partial_rotary_factor")?;
        let (key, fraction) = match partial {
            Some((key, default)) => {
                let top = self.config.optional_positive(key, Some(default))?;
                (key, given.or(top).unwrap_or(default))
            }
            // transformers reads the fraction only for scaled kinds here, and then fails.
            None if kind == "default" => return Ok(head_dim),
            None => ("partial_rotary_factor", given.unwrap_or(1.0)),
        };
        if partial.is_none() && fraction != 1.0 {
            return self.config.fail(format!(
                "{key} {fraction} is not supported with rope_type {kind} for this model_type"
            ));
        }
        let features = (head_dim as f64 * fraction) as usize;
        if fraction > 1.0 || features < 2 || !features.is_multiple_of(2) {
            return self.config.fail(format!(
                "{key} {fraction} rotates {features} of a head's {head_dim} features, which must be an even number of at least 2"
            ));
        }
        Ok(features)
    }

    fn scaling(&self, kind: &str, features: usize) -> Result<Scaling> {
        Ok(match kind {
            "default" => Scaling::Default,
            "linear" => Scaling::Linear { factor: self.needed("factor", kind)? },
            "dynamic" if features > 2 => Scaling::Dynamic {
                factor: self.needed("factor", kind)?,
                positions: self.positions as f64,
            },
            "yarn" => Scaling::Yarn(self.yarn()?),
            "longrope" => self.longrope(features)?,
            "llama3" => Scaling::Llama3 {
                factor: self.needed("factor", kind)?,
                low: self.needed("low_freq_factor", kind)?,
                high: self.needed("high_freq_factor", kind)?,
                original: self.original()? as f64,
            },
            other => {
                return self.config.fail(format!(
                    "rope_type {other:?} is not supported (default, linear, dynamic, yarn, longrope and llama3 are)"
                ));
            }
        })
    }

    /// The positions of pre-training: the configuration's own field wins over the
    /// rotation's.
    fn original(&self) -> Result<usize> {
        let nested = self.positive("original_max_position_embeddings")?.map(|v| v as usize);
        Ok(self.original.or(nested).unwrap_or(self.positions).max(1))
    }

    /// The factor, or how many times more positions there are than in pre-training.
    fn stretch(&self, original: usize) -> Result<f64> {
        Ok(self.positive("factor")?.unwrap_or(self.positions as f64 / original as f64))
    }

    fn yarn(&self) -> Result<Yarn> {
        let original = self.original()?;
        let factor = self.stretch(original)?;
        // YaRN, equation 22, with DeepSeek's two factors: 0.1·m·ln s + 1.
        let mscale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let number = |key: &str| self.value(key).and_then(Value::as_f64).filter(|v| *v != 0.0);
        let magnitude = match (
            self.positive("attention_factor")?,
            number("mscale"),
            number("mscale_all_dim"),
        ) {
            (Some(given), ..) => given,
            (None, Some(m), Some(all)) => mscale(m) / mscale(all),
            _ => mscale(1.0),
        };
        Ok(Yarn {
            factor,
            original: original as f64,
            fast: number("beta_fast").unwrap_or(32.0),
            slow: number("beta_slow").unwrap_or(1.0),
            truncate: self.value("truncate").and_then(Value::as_bool).unwrap_or(true),
            magnitude,
        })
    }

    fn longrope(&self, features: usize) -> Result<Scaling> {
        let original = self.original()?;
        let factor = self.stretch(original)?;
        let magnitude = match self.positive("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            // √(1 + ln s / ln L)
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        if !magnitude.is_finite() {
            return self.config.fail("rope_type longrope needs more than one original position");
        }
        Ok(Scaling::LongRope {
            short: self.factors("short_factor", features / 2)?,
            long: self.factors("long_factor", features / 2)?,
            original,
            magnitude,
        })
    }

    /// A positive factor for each pair of features.
    fn factors(&self, key: &str, pairs: usize) -> Result<Vec<f64>> {
        let list = self.value(key).and_then(Value::as_array);
        let numbers: Vec<f64> = list.into_iter().flatten().filter_map(Value::as_f64).collect();
        if numbers.len() != pairs || !numbers.iter().all(|v| v.is_finite() && *v > 0.0) {
            return self.config.fail(format!(
                "rope_type longrope needs a \"{key}\" of {pairs} positive numbers, one for each pair of features"
            ));
        }
        Ok(numbers)
    }
}

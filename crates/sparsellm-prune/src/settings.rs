//! The settings of a run: every option of pruning, its default, and its words in the
//! record.

use crate::{Pattern, Scope, Selection, Solver, StateType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sparsellm_base::{Error, Result, usage_error};
use sparsellm_model::Ffn;
use sparsellm_ranks::Communicator;
use std::ops::Range;

/// The allocation OWL's authors use.
pub const OWL: f32 = 0.08;

/// The settings of a run.
///
/// A method's own are [`Method::defaults`](crate::Method::defaults); what a user asks
/// for is laid over them once, by [`overlay`](Self::overlay). As JSON they are, with
/// the digests of what the run reads, its identity: a run is resumed, and a sweep's
/// cell is done, where these are the same.
///
/// ```
/// use sparsellm_prune::{Settings, find_method};
/// use serde_json::json;
///
/// let defaults = find_method("sparsellm-plus")?.defaults();
/// let asked = json!({"epochs": 3, "pattern": "2:4"});
/// let settings = defaults.overlay(asked.as_object().unwrap())?;
/// assert_eq!((settings.epochs, settings.to_json()["pattern"].as_str()), (3, Some("2:4")));
/// # Ok::<(), sparsellm_base::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of the method that prunes.
    pub method: String,
    /// Which weights go.
    #[serde(skip)]
    pub pattern: Pattern,
    /// Decoder layers to prune; all where `None`.
    #[serde(with = "layer_range")]
    pub layers: Option<Range<usize>>,
    /// SparseLLM's α; where `None`, the authors' for the kind of network (0.1 for
    /// plain ones, 5 for gated ones).
    #[serde(with = "optional_decimal")]
    pub alpha: Option<f32>,
    /// SparseLLM's β, likewise.
    #[serde(with = "optional_decimal")]
    pub beta: Option<f32>,
    /// SparseLLM's epochs.
    pub epochs: usize,
    /// Damping of the Hessians, relative to their mean diagonal.
    #[serde(with = "decimal")]
    pub damping: f32,
    /// Columns per block of the OBS sweep.
    pub block_size: usize,
    /// Round kept weights to this many bits (second-order methods).
    pub bits: Option<u32>,
    /// Capture a group's inputs after the groups before it were pruned.
    pub true_sequential: bool,
    /// Which solver finds each linear's mask and weights.
    pub solver: Solver,
    /// Among which weights the solver chooses its mask.
    pub mask_scope: Scope,
    /// Conjugate-gradient steps of masked refit after each prune; 0 for none.
    pub refit: usize,
    /// How far the layers' sparsities spread by their outliers: OWL's λ; 0 for
    /// uniform sparsity.
    #[serde(with = "decimal")]
    pub allocation: f32,
    /// Global methods: solve the last linear again on the activations that the
    /// pruned first linears really give.
    pub sequential_refit: bool,
    /// Global methods: how far the target moves from the layer's own dense output (0)
    /// to what leads to the dense model's hidden states (1).
    #[serde(with = "decimal")]
    pub target: f32,
    /// Global methods: how much what a neuron is worth to the network's output weighs
    /// in the first linears' masks, from 0 (not at all) to 1.
    #[serde(with = "decimal")]
    pub neuron_weights: f32,
    /// Global methods: the number type that z and s are kept in.
    pub state: StateType,
}

impl Settings {
    /// The settings that the published methods share, at 70 %.
    pub fn published(method: &str) -> Self {
        Settings {
            method: method.into(),
            pattern: Pattern::default(),
            layers: None,
            alpha: None,
            beta: None,
            epochs: 4,
            damping: 0.01,
            block_size: 128,
            bits: None,
            true_sequential: false,
            solver: Solver::Obs,
            mask_scope: Solver::Obs.scope(),
            refit: 0,
            allocation: 0.0,
            sequential_refit: false,
            target: 0.0,
            neuron_weights: 0.0,
            state: StateType::F32,
        }
    }

    /// These settings with what was `asked` for in their place, by the fields' names.
    /// How much goes is `sparsity` or `pattern`. A solver brings the mask scope it is
    /// published with.
    ///
    /// # Errors
    /// Where a name is no setting's, or a value is not of its kind.
    pub fn overlay(&self, asked: &Map<String, Value>) -> Result<Settings> {
        let bad = |e: serde_json::Error| Error::Usage(format!("settings: {e}"));
        let Value::Object(mut all) = serde_json::to_value(self).map_err(bad)? else {
            return Ok(self.clone());
        };
        let mut pattern = self.pattern;
        for (name, value) in asked {
            match (name.as_str(), value) {
                ("sparsity", Value::Number(rho)) => {
                    pattern = Pattern::unstructured(rho.as_f64().unwrap_or(f64::NAN))?;
                }
                ("pattern", Value::String(text)) => pattern = text.parse().map_err(Error::Usage)?,
                ("sparsity" | "pattern", other) => {
                    return usage_error!("`{name}` is {other}; a number or N:M was expected");
                }
                _ => drop(all.insert(name.clone(), value.clone())),
            }
        }
        let settings: Settings = serde_json::from_value(Value::Object(all)).map_err(bad)?;
        let scope = match asked.contains_key("solver") && !asked.contains_key("mask_scope") {
            true => settings.solver.scope(),
            false => settings.mask_scope,
        };
        Ok(Settings { pattern, mask_scope: scope, ..settings })
    }

    /// The settings as a record has them.
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.shift_insert(1, "pattern".into(), self.pattern.to_string().into());
        }
        json
    }

    /// α and β for a network.
    pub fn penalties(&self, ffn: &Ffn) -> (f32, f32) {
        let usual = match ffn {
            Ffn::Gated { .. } => 5.0,
            Ffn::Plain { .. } => 0.1,
        };
        (self.alpha.unwrap_or(usual), self.beta.unwrap_or(usual))
    }

    /// How masks are chosen.
    pub fn selection<'a>(&self, ranks: &'a dyn Communicator) -> Selection<'a> {
        Selection { pattern: self.pattern, scope: self.mask_scope, row_weights: None, ranks }
    }
}

/// An f32 as it was written: 0.01, not 0.009999999776.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.to_string().parse().unwrap_or(f64::from(*value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        Ok(f64::deserialize(from)? as f32)
    }
}

/// The same where there may be none.
mod optional_decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f32>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::decimal::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
        Ok(Option::<f64>::deserialize(from)?.map(|value| value as f32))
    }
}

/// A range of layers as `A..B`.
mod layer_range {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::ops::Range;

    pub fn serialize<S: Serializer>(
        value: &Option<Range<usize>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(range) => to.serialize_str(&format!("{}..{}", range.start, range.end)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Range<usize>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let range = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
        let hint = || D::Error::custom("a range A..B was expected, e.g. 0..12");
        range.map(Some).ok_or_else(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_overlay_changes_what_it_names_and_nothing_else() {
        let own =
            Settings { pattern: Pattern::Unstructured(0.123_456), ..Settings::published("x") };
        assert_eq!(own.overlay(&Map::new()).unwrap(), own);
        let asked = json!({"damping": 0.1, "layers": "1..3", "solver": "admm", "alpha": null});
        let settings = own.overlay(asked.as_object().unwrap()).unwrap();
        let want = Settings {
            damping: 0.1,
            layers: Some(1..3),
            solver: Solver::Admm,
            mask_scope: Scope::Matrix,
            ..own.clone()
        };
        assert_eq!(settings, want);
        let json = settings.to_json();
        assert_eq!(json["damping"], json!(0.1));
        assert_eq!(json.as_object().unwrap().keys().nth(1).unwrap(), "pattern");
        for bad in [
            json!({"epoch": 3}),
            json!({"epochs": "3"}),
            json!({"layers": "1-3"}),
            json!({"damping": f32::NAN}),
            json!({"sparsity": f64::NAN}),
        ] {
            assert!(own.overlay(bad.as_object().unwrap()).is_err(), "{bad}");
        }
    }
}

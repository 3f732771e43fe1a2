//! The settings of a run: every option of pruning, its default value, and its form in JSON.

use crate::{
    Allocation, Pattern, Scope, Selection, Solver, StateType,
    tune::{TuneScope, TuneSettings},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sparsellm_base::{Error, Result, usage_error};
use sparsellm_model::Ffn;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use std::ops::Range;

/// The settings of a run.
///
/// Every method has its own [defaults](crate::Method::defaults), and
/// [`overlay`](Self::overlay) replaces those that a user asks for. Written as JSON, the
/// settings and the digests of the files that a run reads are the run's identity: only a run
/// with the same identity can be resumed, or counts as a finished cell of a sweep.
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
    /// How many weights are removed, and from which groups.
    #[serde(skip)]
    pub pattern: Pattern,
    /// Whether every weight that is zero in the input stays zero. Such weights count towards the
    /// pattern. If there are more of them than it asks for, all of them stay.
    pub keep_zeros: bool,
    /// The decoder layers to prune; `None` means all of them.
    #[serde(with = "layer_range")]
    pub layers: Option<Range<usize>>,
    /// SparseLLM's α, the penalty of the linear constraints. `None` means the authors' value
    /// for the kind of network: 0.1 for plain networks, 5 for gated ones.
    #[serde(with = "optional_decimal")]
    pub alpha: Option<f32>,
    /// SparseLLM's β, the penalty of the activation constraint. `None` has the same meaning
    /// as for α.
    #[serde(with = "optional_decimal")]
    pub beta: Option<f32>,
    /// The number of SparseLLM's epochs per decoder layer.
    pub epochs: usize,
    /// The damping of each Hessian, relative to the mean of its diagonal.
    #[serde(with = "decimal")]
    pub damping: f32,
    /// The number of columns per block of the OBS sweep.
    pub block_size: usize,
    /// Rounds the kept weights to this many bits within the OBS sweep; `None` does not round
    /// them.
    pub bits: Option<u32>,
    /// Whether the inputs of each group of linears are captured after the groups before it
    /// have been pruned, rather than from the dense layer.
    pub true_sequential: bool,
    /// The solver that finds each linear's mask and weights.
    pub solver: Solver,
    /// The set of weights among which the solver ranks scores to choose its mask.
    pub mask_scope: Scope,
    /// The number of conjugate-gradient steps that refit the kept weights after each prune.
    pub refit: usize,
    /// How the linears share the sparsity.
    pub allocation: Allocation,
    /// SparseLLM: whether the last linear is fitted to the activations that the pruned first
    /// linears actually produce, rather than to the auxiliary a.
    pub sequential_refit: bool,
    /// SparseLLM: the target that a feed-forward network is fitted to, from the network's own
    /// dense output (0) to the output that would restore the dense model's hidden states (1).
    #[serde(with = "decimal")]
    pub target: f32,
    /// SparseLLM: how strongly the masks of the first linears favour neurons that matter to the
    /// network's output, from 0 (not at all) to 1.
    #[serde(with = "decimal")]
    pub neuron_weights: f32,
    /// The number type in which SparseLLM's z and s are kept between epochs, and Adam's moments.
    pub state: StateType,
    /// What is tuned of the kept weights, norms and biases.
    pub tune: TuneScope,
    /// The options of tuning.
    pub tuning: TuneSettings,
}

impl Settings {
    /// The settings that the published methods share, at a sparsity of 70 %.
    pub fn published(method: &str) -> Self {
        Settings {
            method: method.into(),
            pattern: Pattern::default(),
            keep_zeros: false,
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
            allocation: Allocation::Uniform,
            sequential_refit: false,
            target: 0.0,
            neuron_weights: 0.0,
            state: StateType::F32,
            tune: TuneScope::None,
            tuning: TuneSettings::default(),
        }
    }

    /// Returns these settings with the values that were `asked` for. Keys are names of fields, those
    /// of [`TuneSettings`] included;
    /// the pattern is given as `sparsity` (a number) or `pattern` (text such as `2:4`). Asking
    /// for a solver without a mask scope selects the scope that the solver was published with.
    ///
    /// # Errors
    /// If a key is not a setting, or a value has the wrong type.
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
                _ => {
                    let tuning = all.get_mut("tuning").and_then(Value::as_object_mut);
                    match tuning.filter(|tuning| tuning.contains_key(name)) {
                        Some(tuning) => tuning.insert(name.clone(), value.clone()),
                        None => all.insert(name.clone(), value.clone()),
                    };
                }
            }
        }
        let settings: Settings = serde_json::from_value(Value::Object(all)).map_err(bad)?;
        let scope = match asked.contains_key("solver") && !asked.contains_key("mask_scope") {
            true => settings.solver.scope(),
            false => settings.mask_scope,
        };
        Ok(Settings { pattern, mask_scope: scope, ..settings })
    }

    /// The settings as a run's record holds them.
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.shift_insert(1, "pattern".into(), self.pattern.to_string().into());
        }
        json
    }

    /// The penalties α and β for a network.
    pub fn penalties(&self, ffn: &Ffn) -> (f32, f32) {
        let usual = match ffn {
            Ffn::Gated { .. } => 5.0,
            Ffn::Plain { .. } => 0.1,
        };
        (self.alpha.unwrap_or(usual), self.beta.unwrap_or(usual))
    }

    /// The selection of masks that these settings ask for, for all rows alike.
    pub fn selection<'a>(&self, ranks: &'a dyn Communicator) -> Selection<'a> {
        Selection {
            pattern: self.pattern,
            scope: self.mask_scope,
            row_weights: None,
            held: None,
            ranks,
        }
    }

    /// Marks the weights of the input `w` that must stay zero; `None` if none must.
    pub fn held(&self, w: &Matrix) -> Option<Vec<bool>> {
        self.keep_zeros.then(|| w.data.par_iter().map(|w| *w == 0.0).collect())
    }
}

/// Writes an f32 with the digits that a user gave: 0.01, not 0.009999999776.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.to_string().parse().unwrap_or(f64::from(*value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        Ok(f64::deserialize(from)? as f32)
    }
}

/// The same for an optional number.
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

/// Writes a range of layers as `A..B`.
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

//! Every field of transformers' configuration classes is read, known to be without effect, or
//! refused; and where it is absent, it has transformers' default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Map, Value, json};
use sparsellm_model::{Config, FAMILIES, Opening, Registration, WITHOUT_EFFECT, open_family};
use sparsellm_testing::fixture;
use std::{collections::BTreeMap, path::Path};

/// The classes by `model_type`: tools/fixtures/config_fields.py.
fn classes() -> Map<String, Value> {
    let text = std::fs::read_to_string(fixture("config_fields.json")).unwrap();
    let mut listing: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(listing["classes"].take()).unwrap()
}

fn fields(class: &Value) -> &Map<String, Value> {
    class["fields"].as_object().unwrap()
}

/// Opens a model whose configuration holds nothing but its `model_type` and `changed`.
fn open(model_type: &str, changed: Value) -> Result<BTreeMap<String, Value>, String> {
    let mut json = json!({"model_type": model_type});
    json.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    let config = Config::from_json(&json, Path::new("model"));
    let opening = Opening { model_type, config: &config, has_tensor: &|_| false };
    open_family(&opening).map_err(|e| e.to_string())?;
    Ok(config.asked())
}

/// Whether two defaults are the same: numbers by value.
fn alike(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && a.as_f64() == b.as_f64())
}

fn family(model_type: &str) -> &'static Registration {
    let has = |family: &&Registration| family.members.iter().any(|(_, known)| *known == model_type);
    FAMILIES.iter().find(has).unwrap()
}

#[test]
fn every_field_is_decided_on() {
    let classes = classes();
    for (_, model_type) in FAMILIES.iter().flat_map(|family| family.members) {
        let class = classes.get(*model_type).unwrap_or_else(|| {
            panic!("add {model_type} to tools/fixtures/config_fields.py and run it")
        });
        let asked = open(model_type, json!({})).unwrap();
        for (field, default) in fields(class) {
            let place = format!("{}.{field}", class["class"]);
            let ignored = WITHOUT_EFFECT.contains(&field.as_str())
                || family(model_type).without_effect.contains(&field.as_str());
            match asked.get(field) {
                Some(ours) => assert!(alike(ours, default), "{place}: {ours} for {default}"),
                None => assert!(ignored, "nobody decided what {place} means"),
            }
            assert!(
                !(ignored && asked.contains_key(field)),
                "{place} is read, so it has an effect"
            );
        }
    }
}

#[test]
fn no_field_is_called_without_effect_that_there_is_not() {
    let classes = classes();
    for field in WITHOUT_EFFECT {
        assert!(classes.values().any(|class| fields(class).contains_key(*field)), "{field}");
    }
    for family in FAMILIES {
        for field in family.without_effect {
            let has =
                |(_, model_type): &(_, &str)| fields(&classes[*model_type]).contains_key(*field);
            assert!(family.members.iter().any(has), "{field}");
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = [
        ("llama", json!({"is_causal": false}), "is_causal"),
        ("qwen3", json!({"per_layer_config": {"0": {"hidden_size": 8}}}), "per_layer_config"),
        ("gemma2", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        (
            "qwen2",
            json!({"layer_types": ["chunked_attention"], "num_hidden_layers": 1}),
            "chunked_attention",
        ),
        (
            "qwen2",
            json!({"layer_types": ["sliding_attention"], "num_hidden_layers": 1}),
            "use_sliding_window",
        ),
        ("qwen3", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("llama", json!({"hidden_act": "mish"}), "mish"),
        ("llama", json!({"rope_scaling": {"rope_type": "axial"}}), "axial"),
        ("llama", json!({"rope_scaling": {"type": "yarn", "factor": "4"}}), "factor"),
        ("llama", json!({"rope_scaling": {"type": "linear"}}), "factor"),
        ("llama", json!({"rope_scaling": "linear"}), "rope_scaling"),
        ("llama", json!({"rope_theta": "500000"}), "rope_theta"),
        (
            "llama",
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
            "full_attention",
        ),
        (
            "llama",
            json!({"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}),
            "short_factor",
        ),
        (
            "mistral",
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}}),
            "partial_rotary_factor",
        ),
        ("gpt_neox", json!({"rotary_pct": 1.5}), "rotary_pct"),
        ("opt", json!({"hidden_size": -1}), "hidden_size"),
    ];
    for (model_type, changed, named) in refused {
        let error = open(model_type, changed.clone()).expect_err(&changed.to_string());
        assert!(error.contains(named), "{error}");
    }
}

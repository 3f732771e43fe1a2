//! Tests the demo end to end: the first thing that a user sees must show what is claimed.
#![allow(clippy::unwrap_used)]

mod common;

use common::json;

/// On both embedded models, each method beats the next simpler one.
#[test]
fn the_methods_come_in_their_order() {
    for (sparsity, seed) in [("0.7", "0"), ("0.8", "1")] {
        let report = json(&["demo", "--json", "--sparsity", sparsity, "--seed", seed]);
        let results = report["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        for model in results {
            let perplexity =
                |method: &str| model["methods"][method]["perplexity"].as_f64().unwrap();
            let methods = ["sparsellm-plus", "sparsellm", "sparsegpt", "wanda", "magnitude"];
            let order = methods.map(perplexity);
            let place = format!("{} at {sparsity}, seed {seed}: {order:?}", model["model"]);
            assert!(order.is_sorted_by(|a, b| a < b), "{place}");
            assert!(model["dense"].as_f64().unwrap() < order[0], "{place}");
        }
    }
}

//! Tests the report that `prune` leaves beside the checkpoint.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, json};
use tempfile::TempDir;

#[test]
fn prune_leaves_a_report_that_says_what_it_cost() {
    let temp = TempDir::new().unwrap();
    let (model, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let run = |model: &str, name: &str, extra: &[&str]| {
        let out = temp.path().join(name).display().to_string();
        let mut args = vec!["prune", model, "--output", &out, "--json", "--calibration", &text];
        args.extend(["--samples", "4", "--seq-len", "64", "--layers", "0..2"]);
        args.extend(extra);
        let report = json(&args);
        (report, std::fs::read_to_string(format!("{out}/report.html")).unwrap())
    };
    let test = asset("stories/test.txt");
    let eval = ["--eval", &test, "--max-windows", "4"];
    let (report, html) = run(&model, "one", &eval);
    for what in ["dense", "pruned"] {
        let figure = report["perplexity"][0][what].as_f64().unwrap();
        assert!(html.contains(&format!("{figure:.3}")), "{what} {figure}");
    }
    for what in ["tiny-llama", "sparsellm-plus", "test.txt", "calibration.txt", "mlp.down_proj"] {
        assert!(html.contains(what), "{what}");
    }
    assert!(!html.contains("://") && !html.contains("<script"));
    assert!(!html.contains(&temp.path().display().to_string()), "no paths of this machine");
    // The same command gives the same bytes, whatever the number of threads.
    let again = run(&model, "two", &[&eval[..], &["--threads", "1"]].concat()).1;
    assert_eq!(again, html);
    // If the pruned model is pruned again, the result has a report of its own.
    let (_, other) =
        run(temp.path().join("one").to_str().unwrap(), "three", &["--sparsity", "0.8"]);
    assert!(other != html && other.contains("80"));
}

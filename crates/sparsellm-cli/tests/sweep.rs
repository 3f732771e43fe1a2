//! Tests sweeps end to end.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, sparsellm, sparsellm_command};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Writes a recipe to a folder, beside the texts that it names.
fn recipe(folder: &Path, grids: &str) -> PathBuf {
    let calibration = std::fs::read_to_string(asset("stories/calibration.txt")).unwrap();
    std::fs::write(folder.join("calibration.txt"), &calibration[..40_000]).unwrap();
    std::fs::copy(asset("stories/test.txt"), folder.join("test.txt")).unwrap();
    let model = asset("tiny-llama");
    let path = folder.join("recipe.toml");
    let text = format!(
        "title = \"A test\"\n\
         [evaluate]\ndata = [\"test.txt\"]\nseq-len = 64\nmax-windows = 8\n\
         [defaults]\nmodel = {model:?}\ncalibration = \"calibration.txt\"\nsamples = 2\nseq-len = 64\n\
         {grids}"
    );
    std::fs::write(&path, text).unwrap();
    path
}

const GRIDS: &str = "[[grid]]\nmethod = [\"magnitude\", \"sparsegpt\", \"sparsellm-plus\"]\nsparsity = 0.5\n\
                     pattern = \"2:4\"\n\
                     [[grid]]\nmethod = \"sparsegpt\"\nsparsity = 0.5\nseed = [1, 2]\n";

fn sweep(recipe: &Path, out: &Path) -> Output {
    sparsellm(&["sweep", recipe.to_str().unwrap(), "--output", out.to_str().unwrap()])
}

fn read(out: &Path, name: &str) -> String {
    std::fs::read_to_string(out.join(name)).unwrap()
}

#[test]
fn a_sweep_measures_every_combination_once() {
    let temp = TempDir::new().unwrap();
    let (recipe, out) = (recipe(temp.path(), GRIDS), temp.path().join("out"));
    let first = sweep(&recipe, &out);
    let told = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(first.status.success(), "{told}");
    assert!(told.contains("[8/8]"), "{told}");
    let csv = read(&out, "results.csv");
    assert_eq!(csv.lines().count(), 1 + 1 + 8, "{csv}");
    let results: Value = serde_json::from_str(&read(&out, "results.json")).unwrap();
    let runs = results["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 8);
    for run in runs {
        assert_eq!(run["model"], "tiny-llama");
        assert_eq!(run["settings"]["calibration"], "calibration.txt");
        assert!((run["sparsity"].as_f64().unwrap() - 0.5).abs() < 1e-3);
        assert!(run["seconds"].as_f64().unwrap() > 0.0);
        let pruned = run["perplexity"][0]["perplexity"].as_f64().unwrap();
        assert!(pruned > results["dense"][0]["perplexity"][0]["perplexity"].as_f64().unwrap());
    }

    // The same run outside a sweep gives the same perplexity.
    let text = temp.path().join("test.txt").display().to_string();
    let alone = common::json(&[
        "prune",
        &asset("tiny-llama"),
        "--output",
        temp.path().join("alone").to_str().unwrap(),
        "--method",
        "sparsellm-plus",
        "--pattern",
        "2:4",
        "--samples",
        "2",
        "--seq-len",
        "64",
        "--calibration",
        temp.path().join("calibration.txt").to_str().unwrap(),
        "--eval",
        &text,
        "--max-windows",
        "8",
        "--json",
    ]);
    let same = runs.iter().find(|r| r["method"] == "sparsellm-plus" && r["pattern"] == "2:4");
    assert_eq!(
        alone["perplexity"][0]["pruned"],
        same.unwrap()["perplexity"][0]["perplexity"],
        "shared calibration changes nothing"
    );

    let again = sweep(&recipe, &out);
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && told.matches("done before").count() == 8, "{told}");
    assert_eq!(read(&out, "results.csv"), csv);
    let html = read(&out, "report.html");
    assert!(html.contains("A test") && !html.contains("<script") && !html.contains("://"));
    assert!(read(&out, "report.md").contains("sparsegpt"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 5, "four results and the runs");

    // With another calibration text, the runs that use it are done again.
    std::fs::copy(asset("stories/test.txt"), temp.path().join("calibration.txt")).unwrap();
    let other = sweep(&recipe, &out);
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(told.matches("done before").count(), 2, "magnitude's alone: {told}");
}

#[test]
fn a_killed_sweep_goes_on_to_the_same_results() {
    let temp = TempDir::new().unwrap();
    let recipe = recipe(temp.path(), GRIDS);
    let whole = temp.path().join("whole");
    assert!(sweep(&recipe, &whole).status.success());
    let out = temp.path().join("killed");
    for kill in 0..8 {
        let mut command = sparsellm_command(&[
            "sweep",
            recipe.to_str().unwrap(),
            "--output",
            out.to_str().unwrap(),
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100 + 170 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = sweep(&recipe, &out);
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    assert_eq!(read(&out, "results.csv"), read(&whole, "results.csv"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 5, "nothing of the killed is left");
}

#[test]
fn a_run_that_fails_is_told_and_the_others_go_on() {
    let temp = TempDir::new().unwrap();
    let grids = "[[grid]]\nmethod = [\"sparsegpt\", \"magnitude\"]\nseq-len = [64, 1000000]\n";
    let (recipe, out) = (recipe(temp.path(), grids), temp.path().join("out"));
    let output = sweep(&recipe, &out);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("1 of 4 runs failed: tiny-llama sparsegpt 70%"), "{told}");
    assert!(told.contains("too few for one segment"), "{told}");
    assert_eq!(read(&out, "results.csv").lines().count(), 1 + 1 + 3);
}

#[test]
fn mistakes_in_a_recipe_are_found_before_any_run() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out");
    for (grids, says) in [
        ("[[grid]]\nsparsty = 0.5\n", "recipe, grid 1: unexpected argument '--sparsty'"),
        ("[[grid]]\nsparsity = [0.5, 2]\n", "outside [0, 1)"),
        ("[[grid]]\nmethod = \"sparse-gpt\"\n", "sparse-gpt"),
        ("[[grid]]\noutput = \"x\"\n", "output is not a grid's to say"),
        ("[[grid]]\nalpha = [[1]]\n", "alpha is [1]"),
        ("[[grid]]\nmodel = \"no/such/model/here\"\n", "no/such/model/here"),
        ("[[grid]]\nmethod = \"magnitude\"\nbits = 4\n", "--bits rounds"),
        ("[[grids]]\nsparsity = 0.5\n", "unknown field `grids`"),
        ("[[grid]]\nsparsity = \n", "TOML parse error at line"),
        ("", "no [[grid]]"),
    ] {
        let recipe = recipe(temp.path(), grids);
        let output = sweep(&recipe, &out);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(says), "{grids}: {told}");
        assert!(!told.contains("panicked") && !out.exists(), "{grids}: {told}");
    }
    let output = sweep(&temp.path().join("none.toml"), &out);
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.toml"));
    // A folder that holds something other than a sweep is left alone.
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "years of work").unwrap();
    let output = sweep(&recipe(temp.path(), GRIDS), &out);
    assert!(String::from_utf8_lossy(&output.stderr).contains("something else than a sweep"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
}

/// Every shipped recipe uses only options that exist.
#[test]
fn shipped_recipes_are_read() {
    let folder = common::repository().join("recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, temp) = (entry.unwrap().path(), TempDir::new().unwrap());
        let home = temp.path().to_str().unwrap().to_string();
        let out = temp.path().join("out");
        let mut command = sparsellm_command(&[
            "sweep",
            path.to_str().unwrap(),
            "--offline",
            "--output",
            out.to_str().unwrap(),
        ]);
        if path.ends_with("embedded.toml") {
            continue; // `.ci/run` carries out this recipe
        }
        let output = command.env("HF_HOME", home).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // The run fails only because the first model is not in the cache: the recipe is correct.
        assert!(told.contains("forbids to download it"), "{}: {told}", path.display());
        seen += 1;
    }
    assert!(seen >= 4);
}

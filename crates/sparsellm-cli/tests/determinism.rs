//! Tests that the same command gives the same bytes, whatever the number of threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{asset, files, sparsellm_command};
use tempfile::TempDir;

const METHODS: [&str; 5] = ["magnitude", "wanda", "sparsegpt", "sparsellm", "sparsellm-plus"];
/// The values of `--threads`. Without it, the command uses RAYON_NUM_THREADS threads or, if that is
/// not set, all cores.
const THREADS: [Option<&str>; 4] = [Some("1"), Some("2"), Some("4"), None];

#[test]
fn every_method_and_pattern_gives_the_same_bytes_whatever_the_threads() {
    let temp = TempDir::new().unwrap();
    let mut compared = 0;
    for model in ["tiny-llama", "tiny-opt"] {
        for method in METHODS {
            for amount in [["--sparsity", "0.7"], ["--pattern", "2:4"], ["--pattern", "4:8"]] {
                let results = THREADS.map(|threads| {
                    let out = temp.path().join("out");
                    let mut command = sparsellm_command(&["prune", &asset(model)]);
                    command.args(["--method", method]).args(amount).arg("--output").arg(&out);
                    command.args(["--calibration", &asset("stories/calibration.txt")]);
                    // This makes many tiles of tokens, the last of which is not full.
                    command.args(["--samples", "5", "--seq-len", "200", "--layers", "0..2"]);
                    command.args(["--force", "--epochs", "2"]).env_remove("RAYON_NUM_THREADS");
                    command.args(threads.iter().flat_map(|n| ["--threads", n]));
                    let output = command.output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{method}: {said}");
                    files(&out)
                });
                for (threads, result) in THREADS.iter().zip(&results) {
                    assert!(*result == results[0], "{model} {method} {amount:?} {threads:?}");
                    compared += 1;
                }
            }
        }
    }
    eprintln!("{compared} runs compared: {} of a kind, at 1, 2, 4 and all threads", THREADS.len());
}

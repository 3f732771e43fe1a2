//! `sparsellm tune`, as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{asset, files, json, layers_done, sparsellm, sparsellm_command};
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Which elements of each tensor are zero.
fn zeros(folder: &Path) -> BTreeMap<String, Vec<bool>> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of = |(name, tensor): (String, safetensors::tensor::TensorView)| {
        let size = tensor.dtype().bitsize() / 8;
        let elements = tensor.data().chunks_exact(size);
        (name, elements.map(|e| e.iter().all(|b| b & 0x7f == 0)).collect())
    };
    file.tensors().into_iter().map(of).collect()
}

fn perplexity(model: &str) -> f64 {
    let text = asset("stories/test.txt");
    let eval =
        ["eval", model, "--data", &text, "--seq-len", "128", "--max-windows", "40", "--json"];
    json(&eval)["results"][0]["perplexity"].as_f64().unwrap()
}

#[test]
fn a_tuned_checkpoint_is_better_and_its_zeros_stay() {
    for model in ["tiny-llama", "tiny-opt"] {
        let temp = TempDir::new().unwrap();
        let (dense, text) = (asset(model), asset("stories/calibration.txt"));
        let path = |name: &str| temp.path().join(name).display().to_string();
        let (pruned, tuned) = (path("pruned"), path("tuned"));
        let draw = ["--calibration", &text, "--samples", "32", "--seq-len", "128"];
        let prune =
            ["prune", &dense, "-o", &pruned, "--method", "wanda", "--pattern", "2:4", "--json"];
        json(&[&prune[..], &draw].concat());
        let tune =
            ["tune", &pruned, "--dense", &dense, "-o", &tuned, "--tune-epochs", "2", "--json"];
        let report = json(&[&tune[..], &draw].concat());
        let curve = report["tune"]["held_out"].as_array().unwrap();
        assert_eq!((curve.len(), &report["tune"]["kept_epoch"]), (3, &2.into()), "{report}");
        assert!(curve.iter().map(|loss| loss.as_f64().unwrap()).is_sorted_by(|a, b| a > b));
        assert!(report["peak_rss_bytes"].as_u64().unwrap() > 0 && report["seconds"].is_f64());

        assert!(perplexity(&tuned) < perplexity(&pruned), "{model}");
        let (before, after) = (zeros(pruned.as_ref()), zeros(tuned.as_ref()));
        assert!(before.keys().eq(after.keys()));
        for (name, before) in &before {
            let revived = before.iter().zip(&after[name]).filter(|(b, a)| **b && !**a).count();
            assert!(revived == 0 || !name.contains("proj") && !name.contains("fc"), "{name}");
        }
        let inspected = json(&["inspect", &tuned, "--json"]);
        let tensors = inspected["tensors"].as_array().unwrap();
        let holds = |t: &serde_json::Value| t["patterns"].to_string().contains("2:4");
        assert!(tensors.iter().filter(|t| holds(t)).count() >= 12, "{inspected}");

        let record: serde_json::Value = serde_json::from_slice(
            &std::fs::read(temp.path().join("tuned/sparsellm.json")).unwrap(),
        )
        .unwrap();
        assert_eq!(record["settings"]["method"], "wanda");
        assert_eq!(record["tune"], report["tune"]);

        // The same command gives the same bytes, on one thread, too.
        let again = path("again");
        let tune = [
            "tune",
            &pruned,
            "--dense",
            &dense,
            "-o",
            &again,
            "--tune-epochs",
            "2",
            "--threads",
            "1",
        ];
        sparsellm(&[&tune[..], &draw].concat());
        for file in ["model.safetensors", "sparsellm.json"] {
            let read = |folder: &str| std::fs::read(Path::new(folder).join(file)).unwrap();
            assert!(read(&tuned) == read(&again), "{model}: {file}");
        }
    }
}

#[test]
fn what_cannot_be_tuned_is_refused() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out").display().to_string();
    let (llama, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let other = common::family("llama3").display().to_string();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--dense", &other], 1, "vocabulary"),
        (&["--dense", &llama, "--learning-rate", "2"], 2, "--learning-rate"),
        (&["--dense", &llama, "--samples", "1"], 2, "2 segments"),
        (&["--dense", "no/such"], 1, "no such file"),
    ];
    for (extra, status, words) in cases {
        let tune = ["tune", &llama, "-o", &out, "--calibration", &text, "--seq-len", "64"];
        let run = sparsellm(&[&tune[..], extra].concat());
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(std::fs::read_dir(temp.path()).unwrap().next().is_none(), "{extra:?}");
    }
}

/// `KILLS=20` tries as many kills as docs/reliability.md reports.
#[test]
fn killed_at_any_moment_tuning_resumes_to_the_same_bytes() {
    let kills = std::env::var("KILLS").map_or(3, |kills| kills.parse().unwrap());
    let temp = TempDir::new().unwrap();
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (dense, text, pruned) =
        (asset("tiny-opt"), asset("stories/calibration.txt"), path("pruned"));
    sparsellm(&["prune", &dense, "-o", &pruned, "--method", "magnitude"]);
    let args = |out: &str, resume: bool| -> Vec<String> {
        let tune = ["tune", &pruned, "--dense", &dense, "-o", out, "--calibration", &text];
        let draw = ["--samples", "16", "--seq-len", "64", "--tune-epochs", "6", "--json"];
        let resume = resume.then_some("--resume");
        tune.into_iter().chain(draw).chain(resume).map(String::from).collect()
    };
    let run = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        sparsellm_command(&args)
    };
    let (whole, started) = (path("whole"), Instant::now());
    assert!(run(&args(&whole, false)).output().unwrap().status.success());
    let (reference, took) = (files(whole.as_ref()), started.elapsed());
    let mut resumed = 0;
    for kill in 0..kills {
        let out = path(&format!("out-{kill}"));
        let mut child =
            run(&args(&out, false)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The kills are spread over the whole run, and a little beyond.
        sleep(
            took.mul_f64(1.05 * (kill as f64 + 0.7) / kills as f64).max(Duration::from_millis(1)),
        );
        child.kill().unwrap();
        child.wait().unwrap();
        resumed += usize::from(layers_done(out.as_ref()) > 0);
        let again = run(&args(&out, true)).output().unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(files(out.as_ref()) == reference, "kill {kill}: other bytes");
    }
    assert!(resumed > 0, "no run was killed between two epochs");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), kills + 2, "something is left");
    eprintln!("{kills} kills survived of {kills} tried; {resumed} runs went on after an epoch");
}

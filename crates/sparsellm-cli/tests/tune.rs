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
    let texts = TempDir::new().unwrap();
    let short = texts.path().join("short.npy").display().to_string();
    std::fs::write(&short, common::npy("<i8", "(64,)", &[0; 64 * 8])).unwrap();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--dense", &other], 1, "vocabulary"),
        (&["--dense", &llama, "--learning-rate", "2"], 2, "--learning-rate"),
        (&["--dense", &llama, "--samples", "1", "--calibration", &short], 2, "2 segments"),
        (&["--dense", "no/such"], 1, "no such file"),
    ];
    for (extra, status, words) in cases {
        let tune = ["tune", &llama, "-o", &out, "--seq-len", "64"];
        let text = match extra.contains(&"--calibration") {
            true => vec![],
            false => vec!["--calibration", &text],
        };
        let run = sparsellm(&[&tune[..], &text, extra].concat());
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(std::fs::read_dir(temp.path()).unwrap().next().is_none(), "{extra:?}");
    }
}

#[test]
fn pruning_tunes_as_it_is_asked() {
    let temp = TempDir::new().unwrap();
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (dense, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let prune = |what: &str, more: &[&str]| {
        let out = path(what);
        let prune = ["prune", &dense, "-o", &out, "--method", "sparsegpt", "--pattern", "2:4"];
        let draw = ["--calibration", &text, "--samples", "16", "--seq-len", "128", "--json"];
        let tune = ["--tune", what, "--tune-epochs", "2", "--learning-rate", "0.001"];
        (json(&[&prune[..], &draw, &tune, more].concat()), perplexity(&out))
    };
    let (report, untuned) = prune("none", &[]);
    assert!(report.get("tune").is_none() && report["layers"][0].get("tuned").is_none());
    let masks = zeros(path("none").as_ref());
    let (mut best, layers) = (untuned, report["layers"].as_array().unwrap().len());
    for what in ["block", "global", "both"] {
        let (report, tuned) = prune(what, &[]);
        assert!(tuned < untuned, "{what}: {tuned} {untuned}");
        assert!(what != "both" || tuned < best, "{tuned} {best}");
        best = tuned.min(best);
        let curve = report["tune"]["held_out"].as_array();
        assert_eq!(curve.map(Vec::len), (what != "block").then_some(3), "{report}");
        for layer in report["layers"].as_array().unwrap() {
            let halves = layer["tuned"].as_object();
            assert_eq!(halves.map(|h| h.len()), (what != "global").then_some(2), "{layer}");
            for half in halves.into_iter().flat_map(|halves| halves.values()) {
                let loss = |epoch: usize| half["held_out"][epoch].as_f64().unwrap();
                assert!(loss(half["kept_epoch"].as_u64().unwrap() as usize) <= loss(0), "{half}");
            }
        }
        if what == "global" {
            assert!(masks == zeros(path(what).as_ref()), "a mask changed");
        }
        let inspected = json(&["inspect", &path(what), "--json"]);
        let holds = |t: &&serde_json::Value| t["patterns"].to_string().contains("2:4");
        let held = inspected["tensors"].as_array().unwrap().iter().filter(holds).count();
        assert!(held >= 7 * layers, "{what}: {held} linears are 2:4");
    }
    // A run that was finished is told again, with what tuning did.
    let (first, _) = prune("both", &["--force", "--threads", "1"]);
    let (again, _) = prune("both", &["--resume"]);
    assert_eq!(first["tune"], again["tune"]);
    assert_eq!(first["layers"][0]["tuned"], again["layers"][0]["tuned"]);
}

/// `KILLS=20` tries as many kills as docs/reliability.md reports.
#[test]
fn killed_at_any_moment_tuning_resumes_to_the_same_bytes() {
    let temp = TempDir::new().unwrap();
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (dense, text, pruned) =
        (asset("tiny-opt"), asset("stories/calibration.txt"), path("pruned"));
    sparsellm(&["prune", &dense, "-o", &pruned, "--method", "magnitude"]);
    survives_kills(
        &["tune", &pruned, "--dense", &dense, "--calibration", &text, "--tune-epochs", "6"],
        temp.path(),
    );
}

/// The same while a model is pruned, and tuned in both ways.
#[test]
fn killed_at_any_moment_pruning_with_tuning_resumes_to_the_same_bytes() {
    let temp = TempDir::new().unwrap();
    let (dense, text) = (asset("tiny-llama"), asset("stories/calibration.txt"));
    let prune = ["prune", &dense, "--method", "wanda", "--calibration", &text];
    survives_kills(&[&prune[..], &["--tune", "both", "--tune-epochs", "2"]].concat(), temp.path());
}

/// Kills a command at moments that are spread over its whole run, and a little beyond; resumed, it
/// must write the same bytes as a run that was left alone.
fn survives_kills(command: &[&str], temp: &Path) {
    let kills = std::env::var("KILLS").map_or(3, |kills| kills.parse().unwrap());
    let before = std::fs::read_dir(temp).unwrap().count();
    let run = |out: &Path, resume: bool| {
        let out = out.display().to_string();
        let rest = ["-o", &out, "--samples", "16", "--seq-len", "64", "--json"];
        let resume = resume.then_some("--resume");
        sparsellm_command(&command.iter().copied().chain(rest).chain(resume).collect::<Vec<_>>())
    };
    let (whole, started) = (temp.join("whole"), Instant::now());
    assert!(run(&whole, false).output().unwrap().status.success());
    let (reference, took) = (files(&whole), started.elapsed());
    let mut resumed = 0;
    for kill in 0..kills {
        let out = temp.join(format!("out-{kill}"));
        let mut child =
            run(&out, false).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(
            took.mul_f64(1.05 * (kill as f64 + 0.7) / kills as f64).max(Duration::from_millis(1)),
        );
        child.kill().unwrap();
        child.wait().unwrap();
        resumed += usize::from(layers_done(&out) > 0);
        let again = run(&out, true).output().unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(files(&out) == reference, "kill {kill}: other bytes");
    }
    assert!(resumed > 0, "no run was killed between two epochs");
    let after = std::fs::read_dir(temp).unwrap().count();
    assert_eq!(after, before + kills + 1, "something is left");
    eprintln!("{kills} kills survived of {kills} tried; {resumed} runs were resumed in the middle");
}

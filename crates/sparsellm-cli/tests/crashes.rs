//! Tests runs that end before their time: killed, stopped, or out of disk space. `KILLS=40` tries
//! as many kills as docs/reliability.md reports; without it, the tests try a few.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{asset, files, layers_done, sparsellm, sparsellm_command};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The decoder layers of either embedded model.
const LAYERS: usize = 6;

/// The runs that are killed: both embedded models, with a local method and both global ones.
const RUNS: [(&str, &str); 3] =
    [("tiny-llama", "sparsellm-plus"), ("tiny-opt", "sparsegpt"), ("tiny-opt", "sparsellm")];

fn prune(model: &str, method: &str, out: &Path, options: &[&str]) -> Command {
    let (model, text) = (asset(model), asset("stories/calibration.txt"));
    let mut args = vec!["prune", &model, "--output", out.to_str().unwrap(), "--method", method];
    args.extend(["--calibration", &text, "--samples", "8", "--seq-len", "128", "--eval"]);
    let test = asset("stories/test.txt");
    args.extend([&test, "--max-windows", "2"]);
    args.extend(options);
    sparsellm_command(&args)
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
}

/// Waits for a process, and returns what it printed on stderr and its exit status.
fn end(child: Child) -> (String, Option<i32>) {
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// Waits until the run on `out` has finished this many layers.
fn wait_for_layers(child: &mut Child, out: &Path, layers: usize) {
    while layers_done(out) < layers {
        assert!(child.try_wait().unwrap().is_none(), "ended before {layers} layers");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_at_any_moment_a_run_resumes_to_the_same_bytes() {
    let kills = std::env::var("KILLS").map_or(9, |kills| kills.parse().unwrap());
    let temp = TempDir::new().unwrap();
    let references = RUNS.map(|(model, method)| {
        let out = temp.path().join(format!("{model}-{method}"));
        let started = Instant::now();
        let (said, status) = end(start(prune(model, method, &out, &[])));
        assert_eq!(status, Some(0), "{said}");
        (files(&out), started.elapsed())
    });
    let (mut resumed, mut again, mut finished) = (0, 0, 0);
    for kill in 0..kills {
        let ((model, method), (reference, took)) = (RUNS[kill % 3], &references[kill % 3]);
        let out = temp.path().join(format!("out-{kill}"));
        // The kill comes at any moment, from the start of the run to after its end.
        let at = random(kill as u64);
        let mut options = Vec::new();
        let mut child = start(prune(model, method, &out, &options));
        sleep(took.mul_f64(1.05 * at));
        child.kill().unwrap();
        child.wait().unwrap();
        if out.exists() {
            assert!(files(&out) == *reference, "kill {kill} at {at:.3}: not whole");
            finished += 1;
        }
        let done = layers_done(&out);
        options.push("--resume");
        // Every third run is killed once more after it has resumed.
        if kill / 3 % 3 == 0 {
            let mut child = start(prune(model, method, &out, &options));
            sleep(took.mul_f64(0.5 * random(1000 + kill as u64)));
            child.kill().unwrap();
            child.wait().unwrap();
            again += 1;
        }
        assert!(layers_done(&out) >= done || out.exists(), "kill {kill}: layers were lost");
        // A run that was killed just after the rename still has its record of finished layers.
        let (done, whole) = (layers_done(&out), out.exists());
        let (said, status) = end(start(prune(model, method, &out, &options)));
        assert_eq!(status, Some(0), "kill {kill} at {at:.3}: {said}");
        if whole {
            assert!(said.contains("finished before"), "kill {kill}: {said}");
        } else if done > 0 {
            // Further records are those of tuning's epochs.
            let layers = done.min(LAYERS);
            assert!(said.contains(&format!("{layers} of ")), "kill {kill}: {said}");
            resumed += 1;
        }
        assert!(files(&out) == *reference, "kill {kill} at {at:.3}: other bytes");
    }
    eprintln!(
        "{kills} kills survived of {kills} tried: {resumed} runs went on with finished layers, {again} were killed twice, {finished} were whole already"
    );
    let left = fs::read_dir(temp.path()).unwrap().count();
    assert_eq!(left, kills + RUNS.len(), "something is left beside the outputs");
}

/// A process that is killed while it puts the report into the checkpoint leaves a temporary file
/// there; the run that resumes it must not publish it.
#[test]
fn a_half_written_report_is_not_published() {
    let temp = TempDir::new().unwrap();
    let (model, method) = RUNS[1];
    let (whole, out) = (temp.path().join("whole"), temp.path().join("out"));
    assert_eq!(end(start(prune(model, method, &whole, &[]))).1, Some(0));
    let mut child = start(prune(model, method, &out, &[]));
    wait_for_layers(&mut child, &out, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let checkpoint = sparsellm_checkpoint::checkpoint_of(&out).unwrap();
    fs::write(checkpoint.join(".sparsellm-partial-report"), "<html>").unwrap();
    let (said, status) = end(start(prune(model, method, &out, &["--resume"])));
    assert_eq!(status, Some(0), "{said}");
    assert!(files(&out) == files(&whole));
}

/// A pseudo-random number from 0 to 1, by SplitMix64.
fn random(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / u64::MAX as f64
}

#[test]
fn signals_stop_at_a_safe_point_and_say_how_to_go_on() {
    let temp = TempDir::new().unwrap();
    let (model, method) = RUNS[0];
    let whole = temp.path().join("whole");
    assert_eq!(end(start(prune(model, method, &whole, &[]))).1, Some(0));
    for signal in ["INT", "TERM"] {
        let out = temp.path().join(signal);
        let mut child = start(prune(model, method, &out, &[]));
        wait_for_layers(&mut child, &out, 1);
        send(signal, &child);
        let (said, status) = end(child);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("stopping at the next safe point"), "{said}");
        assert!(said.contains("error: stopped;") && said.contains("--resume"), "{said}");
        assert!(!out.exists());
        let (said, status) = end(start(prune(model, method, &out, &["--resume"])));
        assert_eq!(status, Some(0), "{said}");
        assert!(files(&out) == files(&whole), "{signal}: other bytes");
    }
    // A run that has not finished a layer leaves nothing behind.
    let out = temp.path().join("early");
    let child = start(prune(model, method, &out, &["--samples", "64"]));
    sleep(Duration::from_millis(100));
    send("TERM", &child);
    let (said, _) = end(child);
    assert!(!said.contains("--resume") && !out.exists(), "{said}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3);
}

#[test]
fn another_run_is_not_resumed_and_none_is_lost_by_accident() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out");
    let stopped = |out: &Path| {
        let mut child = start(prune("tiny-llama", "sparsegpt", out, &[]));
        wait_for_layers(&mut child, out, 2);
        child.kill().unwrap();
        child.wait().unwrap();
        layers_done(out)
    };
    let done = stopped(&out);
    let refused = |method: &str, options: &[&str], words: &[&str]| {
        let (said, status) = end(start(prune("tiny-llama", method, &out, options)));
        assert_eq!(status, Some(1), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
        assert_eq!(layers_done(&out), done);
    };
    refused("sparsegpt", &[], &["layers done", "--resume", "--force"]);
    refused("wanda", &["--resume"], &["settings.method was \"sparsegpt\" and is \"wanda\""]);
    let seed = ["--resume", "--seed", "1", "--damping", "0.02"];
    refused("sparsegpt", &seed, &["input.calibration_sha256", "damping was 0.01 and is 0.02"]);
    // A model with the same shapes but other weights is another model.
    let other = temp.path().join("other");
    let made = ["prune", &asset("tiny-llama"), "--output", other.to_str().unwrap()];
    assert!(sparsellm(&[&made[..], &["--method", "magnitude"]].concat()).status.success());
    let command = prune(other.to_str().unwrap(), "sparsegpt", &out, &["--resume"]);
    let (said, status) = end(start(command));
    assert!(status == Some(1) && said.contains("input.sha256"), "{said}");
    // The number of threads and the memory are not part of a run's identity.
    let options = ["--resume", "--threads", "1"];
    let (said, status) = end(start(prune("tiny-llama", "sparsegpt", &out, &options)));
    assert!(status == Some(0) && said.contains("layers were done before"), "{said}");
    // A finished run is not done again; its report is only printed again.
    let before = files(&out);
    let (said, status) = end(start(prune("tiny-llama", "sparsegpt", &out, &["--resume"])));
    assert!(status == Some(0) && said.contains("was finished before"), "{said}");
    assert!(files(&out) == before);

    let out = temp.path().join("discarded");
    stopped(&out);
    let (said, status) = end(start(prune("tiny-llama", "wanda", &out, &["--force"])));
    assert!(status == Some(0) && !said.contains("done before"), "{said}");
}

#[test]
fn two_runs_never_write_one_output() {
    let temp = TempDir::new().unwrap();
    let out = temp.path().join("out");
    let mut first = start(prune("tiny-llama", "sparsellm-plus", &out, &[]));
    wait_for_layers(&mut first, &out, 1);
    // Suspend the first run, which would otherwise end before the others try.
    send("STOP", &first);
    for option in [&["--resume"][..], &["--force"], &[]] {
        let (said, status) = end(start(prune("tiny-llama", "sparsellm-plus", &out, option)));
        assert!(status == Some(1) && said.contains("another sparsellm"), "{said}");
    }
    send("CONT", &first);
    assert_eq!(end(first).1, Some(0));
    assert!(out.join("report.html").exists());
}

//! Compares runs over several MPI processes with the run of one. The tests need `mpirun` (Debian:
//! openmpi-bin). They use the embedded models, or a larger model and its texts named by
//! `RANKS_MODEL`, `RANKS_CALIBRATION` and `RANKS_TEST` (docs/scaling.md).
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{asset, layers_done, sparsellm_command};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};
use tempfile::TempDir;

/// A model, the texts that it is calibrated and measured on, and the options for both.
struct Subject {
    model: String,
    calibration: String,
    test: String,
    sizes: &'static [&'static str],
}

fn subjects() -> Vec<Subject> {
    let given = |name: &str| std::env::var(name).ok();
    if let Some(model) = given("RANKS_MODEL") {
        let [calibration, test] = ["RANKS_CALIBRATION", "RANKS_TEST"].map(|n| given(n).expect(n));
        let sizes =
            &["--samples", "16", "--seq-len", "1024", "--max-windows", "16", "--layers", "0..4"];
        return vec![Subject { model, calibration, test, sizes }];
    }
    let text = |name: &str| asset(&format!("stories/{name}.txt"));
    let sizes = &["--samples", "50", "--seq-len", "128", "--max-windows", "9"];
    let subject = |model| Subject {
        model: asset(model),
        calibration: text("calibration"),
        test: text("test"),
        sizes,
    };
    vec![subject("tiny-llama"), subject("tiny-opt")]
}

impl Subject {
    /// The command that prunes the model to `out`, with `ranks` MPI processes or, for 0, without
    /// MPI.
    fn prune(&self, ranks: usize, method: &str, out: &Path, options: &[&str]) -> Command {
        let mut args = vec!["prune", &self.model, "--output", out.to_str().unwrap()];
        args.extend(["--method", method, "--calibration", &self.calibration, "--json"]);
        args.extend(["--eval", &self.test]);
        args.extend(self.sizes);
        args.extend(options);
        let alone = sparsellm_command(&args);
        if ranks == 0 {
            return alone;
        }
        let mut command = mpirun(ranks);
        command.arg(alone.get_program()).args(alone.get_args());
        command
    }
}

fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "-n", &ranks.to_string()]);
    // Open MPI refuses to run as root, as in a container, unless these are set.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

fn report(output: Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // There must be exactly one document: the other ranks print nothing.
    serde_json::from_slice(&output.stdout).expect(&said)
}

/// The weight files of a checkpoint, with their contents.
fn weights(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = common::files(folder);
    files.retain(|name, _| name.extension().is_some_and(|e| e == "safetensors"));
    assert!(!files.is_empty());
    files
}

/// Asserts that two runs gave the same result: the same weights, and the same perplexity except
/// for rounding, because losses are added in another order.
fn compare(at: &str, (report, out): (&Value, &Path), (alone, reference): (&Value, &Path)) {
    for figure in ["dense", "pruned"] {
        let [ours, theirs] = [report, alone].map(|r| r["perplexity"][0][figure].as_f64().unwrap());
        assert!((ours / theirs - 1.0).abs() < 1e-9, "{at}: {figure} {ours}, alone {theirs}");
    }
    assert!(weights(out) == weights(reference), "{at}: other weights");
    let figure = |report: &Value, key: &str| report[key].as_f64().unwrap();
    println!(
        "{at}: the same; perplexity {}; {:.0} MB a rank, {:.0} MB alone; {:.1} s, {:.1} s alone",
        report["perplexity"][0]["pruned"],
        figure(report, "peak_rss_bytes") / 1e6,
        figure(alone, "peak_rss_bytes") / 1e6,
        figure(report, "seconds"),
        figure(alone, "seconds"),
    );
}

#[test]
fn any_number_of_ranks_prunes_alike() {
    let temp = TempDir::new().unwrap();
    for (i, subject) in subjects().iter().enumerate() {
        for method in ["magnitude", "wanda", "sparsegpt", "sparsellm", "sparsellm-plus"] {
            let out = |ranks: usize| temp.path().join(format!("{i}-{method}-{ranks}"));
            let options = ["--sparsity", "0.7"];
            let run = |ranks| subject.prune(ranks, method, &out(ranks), &options).output().unwrap();
            let alone = report(run(0));
            for ranks in [1, 2, 4] {
                let report = report(run(ranks));
                let at = format!("{}, {method}, {ranks} ranks", subject.model);
                compare(&at, (&report, &out(ranks)), (&alone, &out(0)));
            }
        }
    }
}

#[test]
fn the_same_ranks_give_the_same_bytes() {
    let temp = TempDir::new().unwrap();
    let subject = &subjects()[0];
    let run = |out: &str| {
        let out = temp.path().join(out);
        report(subject.prune(3, "sparsellm-plus", &out, &["--threads", "1"]).output().unwrap());
        common::files(&out)
    };
    assert!(run("a") == run("b"));
}

#[test]
fn evaluation_shards_its_windows() {
    let subject = &subjects()[0];
    let eval = ["eval", &subject.model, "--data", &subject.test, "--json", "--seq-len", "128"];
    let eval = sparsellm_command(&[&eval[..], &["--max-windows", "11"]].concat());
    let mut over = mpirun(3);
    over.arg(eval.get_program()).args(eval.get_args());
    let [ours, alone] = [over, eval].map(|mut c| report(c.output().unwrap()));
    let figure = |report: &Value| report["results"][0]["perplexity"].as_f64().unwrap();
    assert!((figure(&ours) / figure(&alone) - 1.0).abs() < 1e-6);
    assert_eq!(ours["results"][0]["windows"], 11);
}

#[test]
fn after_a_rank_dies_other_ranks_go_on() {
    let temp = TempDir::new().unwrap();
    for (i, subject) in subjects().iter().enumerate() {
        let out = |name: &str| temp.path().join(format!("{name}-{i}"));
        let options = ["--sparsity", "0.7"];
        let method = "sparsellm-plus";
        let alone = report(subject.prune(0, method, &out("alone"), &options).output().unwrap());

        let killed = out("killed");
        let mut command = subject.prune(3, method, &killed, &options);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while layers_done(&killed) < 2 {
            sleep(Duration::from_millis(5));
        }
        let rank = process_of(1, &killed).expect("rank 1 runs");
        assert!(Command::new("kill").args(["-9", &rank]).status().unwrap().success());
        let output = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("--resume") && said.contains("signal 9"), "{said}");
        assert!(!killed.exists(), "{said}");

        let options = [&options[..], &["--resume"]].concat();
        let output = subject.prune(2, method, &killed, &options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("layers were done before"), "{said}");
        let resumed = report(output);
        let at = format!("{}, 3 ranks killed, 2 resumed", subject.model);
        compare(&at, (&resumed, &killed), (&alone, &out("alone")));
    }
}

#[test]
fn an_error_is_told_once_and_ends_all_ranks() {
    let temp = TempDir::new().unwrap();
    let subject = &subjects()[0];
    let out = temp.path().join("out");
    let output = subject.prune(3, "wanda", &out, &["--layers", "0..99"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(output.stdout.is_empty() && fs::read_dir(temp.path()).unwrap().next().is_none());
}

/// The id of the process that is this rank of the run on `out`.
fn process_of(rank: usize, out: &Path) -> Option<String> {
    let mark = format!("OMPI_COMM_WORLD_RANK={rank}");
    let is_it = |process: &PathBuf| {
        let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        let has = |bytes: &[u8], text: &str| bytes.split(|b| *b == 0).any(|p| p == text.as_bytes());
        has(&read("environ"), &mark) && has(&read("cmdline"), out.to_str().unwrap())
    };
    let mut processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found = processes.find(is_it)?;
    Some(found.file_name()?.to_str()?.to_string())
}

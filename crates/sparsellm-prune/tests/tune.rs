//! Tuning lowers the loss, keeps every zero, and gives the same bytes on any number of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use sparsellm_base::{Event, Observer, Result};
use sparsellm_checkpoint::Existing;
use sparsellm_model::{HalfInput, Model, Part};
use sparsellm_prune::{
    Keep, Output, StateType,
    tune::{HalfReport, HalfTask, TunePlan, TuneReport, TuneSettings, tune_half, tune_model},
};
use sparsellm_ranks::Local;
use sparsellm_tensor::Arithmetic;
use sparsellm_testing::{edited, fixture, random};
use sparsellm_text::Segments;
use std::path::Path;

/// A family's fixture, and a copy of it in which two of every three weights of linears are zero.
fn models(name: &str, temp: &Path) -> (Model, Model) {
    let (dense, pruned) = (fixture(&format!("families/{name}")), temp.join(name));
    edited(&dense, &pruned, |tensor, shape, bytes| {
        if shape.len() == 2 && tensor.contains("layers.") {
            let weights = bytes.chunks_exact_mut(4).enumerate();
            weights.filter(|(i, _)| i % 3 != 0).for_each(|(_, weight)| weight.fill(0));
        }
    });
    (Model::open(&dense).unwrap(), Model::open(&pruned).unwrap())
}

/// Segments of random tokens.
fn segments(model: &Model) -> Segments {
    let vocabulary = model.shape().vocabulary as f32;
    let tokens = random(1, 16 * 12, 5, 0.5).data;
    Segments::new(tokens.iter().map(|v| ((v + 0.5) * vocabulary) as u32).collect(), 12)
}

const SETTINGS: TuneSettings = TuneSettings {
    tune_epochs: 3,
    learning_rate: 1e-2,
    block_learning_rate: 1e-2,
    hidden_weight: 1.0,
    batch: 3,
    arithmetic: Arithmetic::F32,
};

/// Tunes `pruned`, and writes the result to `output`.
fn tune(
    dense: &Model,
    pruned: &Model,
    output: &Path,
    existing: Existing,
    observe: &mut Observer,
) -> Result<TuneReport> {
    tune_with(&SETTINGS, Keep::default(), (dense, pruned), output, existing, observe)
}

/// The same with settings and a way of keeping moments of one's own.
fn tune_with(
    settings: &TuneSettings,
    keep: Keep,
    (dense, pruned): (&Model, &Model),
    output: &Path,
    existing: Existing,
    observe: &mut Observer,
) -> Result<TuneReport> {
    let segments = segments(dense);
    let plan = TunePlan {
        pruned,
        dense,
        segments: &segments,
        more: &Segments::new(Vec::new(), 12),
        settings,
        keep,
        ranks: &Local,
    };
    let blocks = (0..pruned.shape().layers).map(|i| pruned.block(i)).collect::<Result<_>>()?;
    let mut out = Output::create(&pruned.checkpoint, output, &json!({}), existing, &Local)?;
    let done = out.done().last().cloned();
    let report = tune_model(&plan, blocks, done, &mut out, observe)?;
    out.finish(&json!({}))?.publish()?;
    Ok(report)
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

const FAMILIES: [&str; 5] = ["llama3", "gemma2", "gpt-neox", "opt-350m-style", "phi3"];

#[test]
fn tuning_lowers_the_loss_and_keeps_every_zero() {
    let temp = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let (dense, pruned) = models(name, temp.path());
        let mut seen = Vec::new();
        let mut observer = Observer::new(|event| {
            if let Event::Tuned { epoch, held_out, .. } = event {
                seen.push((epoch, held_out));
            }
            Ok(())
        });
        let out = temp.path().join(format!("{name}-tuned"));
        let report = tune(&dense, &pruned, &out, Existing::default(), &mut observer).unwrap();
        drop(observer);
        let tuned = Model::open(&out).unwrap();
        let best = report.held_out[report.kept_epoch];
        assert!(report.held_out.iter().all(|loss| best <= *loss), "{name}: {report:?}");
        assert!(best < 0.9 * report.held_out[0], "{name}: {report:?}");
        assert!(report.training.is_sorted_by(|a, b| a > b), "{name}: {report:?}");
        let want: Vec<_> = report.held_out.iter().copied().enumerate().collect();
        assert_eq!(seen, want, "{name}");
        for index in 0..tuned.shape().layers {
            let (after, before) = (tuned.block(index).unwrap(), pruned.block(index).unwrap());
            for (after, before) in after.linears().into_iter().zip(before.linears()) {
                let pairs = after.weight.data.iter().zip(&before.weight.data);
                assert!(pairs.clone().all(|(a, b)| (*b != 0.0) || (*a == 0.0)), "{name}");
                assert!(pairs.filter(|(a, b)| a != b).count() > 0, "{name}: {}", before.name);
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, pruned) = models("llama3", temp.path());
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = temp.path().join(threads.to_string());
        let tune = || tune(&dense, &pruned, &out, Existing::default(), &mut Observer::silent());
        pool.install(tune).unwrap();
        weights(&out)
    };
    assert!(run(1) == run(3));
}

/// A run that ended after any of its steps goes on to the same bytes.
#[test]
fn a_resumed_run_gives_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, pruned) = models("gemma2", temp.path());
    let whole = temp.path().join("whole");
    let silent = &mut Observer::silent();
    let report = tune(&dense, &pruned, &whole, Existing::default(), silent).unwrap();
    for steps in [1, 5, 6, 9, 13, 15] {
        let out = temp.path().join(steps.to_string());
        let mut stops = Observer::new(|event| match event {
            Event::Measured { what: "tuning", done, .. } if done == steps => Err("enough".into()),
            _ => Ok(()),
        });
        let error = tune(&dense, &pruned, &out, Existing::default(), &mut stops).unwrap_err();
        assert!(error.to_string().contains("enough"), "{error}");
        let resume = Existing { resume: true, replace: false };
        let mut epochs = Vec::new();
        let mut observer = Observer::new(|event| {
            if let Event::Tuned { epoch, .. } = event {
                epochs.push(epoch);
            }
            Ok(())
        });
        let again = tune(&dense, &pruned, &out, resume, &mut observer).unwrap();
        drop(observer);
        assert_eq!(epochs.first(), Some(&((steps - 1) / 5)), "{steps}"); // 5 steps an epoch
        let curves = |report: &TuneReport| (report.held_out.clone(), report.training.clone());
        assert_eq!(curves(&again), curves(&report));
        assert!(weights(&out) == weights(&whole), "{steps}");
    }
}

/// Moments in files are the same moments; moments in bf16 are not, but nearly as good, and a run
/// that keeps them so can be resumed to the same bytes, too.
#[test]
fn moments_can_be_kept_in_files_and_as_bf16() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, pruned) = models("llama3", temp.path());
    let run = |state, spill, name: &str, stop_at: usize| {
        let (out, keep) = (temp.path().join(name), Keep { state, spill });
        let existing = Existing { resume: true, replace: false };
        let mut stops = Observer::new(|event| match event {
            Event::Measured { what: "tuning", done, .. } if done == stop_at => Err("enough".into()),
            _ => Ok(()),
        });
        let models = (&dense, &pruned);
        tune_with(&SETTINGS, keep, models, &out, existing, &mut stops)
            .map(|report| (report, weights(&out)))
    };
    let (exact, bytes) = run(StateType::F32, None, "memory", 0).unwrap();
    assert!(run(StateType::F32, Some(temp.path()), "file", 0).unwrap().1 == bytes);
    let (rounded, bf16) = run(StateType::Bf16, None, "bf16", 0).unwrap();
    assert!(run(StateType::Bf16, Some(temp.path()), "bf16 file", 0).unwrap().1 == bf16);
    let best = |report: &TuneReport| report.held_out[report.kept_epoch];
    let (exact, rounded) = (best(&exact), best(&rounded));
    assert!(exact != rounded && (rounded / exact - 1.0).abs() < 0.05, "{exact} {rounded}");
    assert!(run(StateType::Bf16, Some(temp.path()), "resumed", 9).is_err());
    assert!(run(StateType::Bf16, Some(temp.path()), "resumed", 0).unwrap().1 == bf16);
    assert!(
        !std::fs::read_dir(temp.path()).unwrap().any(|entry| entry
            .unwrap()
            .file_type()
            .unwrap()
            .is_file())
    );
}

/// The more the distance to the dense model's hidden states weighs, the smaller it becomes.
#[test]
fn hidden_states_come_closer_to_the_dense_models() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, pruned) = models("llama3", temp.path());
    let distance = |weight: f64| {
        let out = temp.path().join(format!("{weight}"));
        let settings = TuneSettings { hidden_weight: weight, ..SETTINGS };
        let silent = &mut Observer::silent();
        tune_with(&settings, Keep::default(), (&dense, &pruned), &out, Existing::default(), silent)
            .unwrap();
        let after = |model: &Model| {
            let mut hidden = model.embed(&segments(model).tokens, 12).unwrap();
            model.block(0).unwrap().run(&mut hidden, 12);
            hidden
        };
        let (ours, theirs) = (after(&Model::open(&out).unwrap()), after(&dense));
        let d = ours.cols;
        let rows = ours.data.chunks(d).zip(theirs.data.chunks(d));
        let relative = |(a, b): (&[f32], &[f32])| {
            let distance: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
            distance / b.iter().map(|b| b * b).sum::<f32>()
        };
        rows.map(relative).sum::<f32>()
    };
    let (without, with) = (distance(0.0), distance(100.0));
    assert!(with < 0.9 * without, "{with} {without}");
}

#[test]
fn models_that_do_not_belong_together_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, _) = models("llama3", temp.path());
    let other = Model::open(&sparsellm_testing::assets().join("tiny-llama")).unwrap();
    let out = temp.path().join("out");
    let run = tune(&other, &dense, &out, Existing::default(), &mut Observer::silent());
    assert!(run.is_err_and(|e| e.to_string().contains("vocabulary")));
    assert!(!out.exists());
}

/// A half that has nothing to add leaves no error to be relative to; its report must be one that a
/// resumed run can read.
#[test]
fn a_half_without_a_task_stays_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let (_, pruned) = models("llama3", temp.path());
    let mut block = pruned.block(0).unwrap();
    let before = block.linears().into_iter().map(|l| l.weight.data.clone()).collect::<Vec<_>>();
    let hidden = random(16 * 12, pruned.shape().hidden, 3, 1.0);
    let task = HalfTask {
        part: Part::Attention,
        input: HalfInput { stream: &hidden, read: &hidden },
        target: &hidden,
        seq_len: 12,
        settings: &SETTINGS,
        keep: Keep::default(),
        checkpoint: &pruned.checkpoint,
        ranks: &Local,
    };
    let report = tune_half(&mut block, &task).unwrap();
    assert_eq!((report.kept_epoch, report.held_out.len()), (0, 1));
    assert!(report.held_out[0].is_finite());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(serde_json::from_value::<HalfReport>(json).unwrap().held_out, report.held_out);
    let after = block.linears().into_iter().map(|l| l.weight.data.clone()).collect::<Vec<_>>();
    assert!(after == before);
}

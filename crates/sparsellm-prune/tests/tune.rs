//! Tuning lowers the loss, keeps every zero, and gives the same bytes on any number of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm_base::{Event, Observer};
use sparsellm_model::{Block, Model};
use sparsellm_prune::tune::{Held, TuneSettings, tune_model};
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

fn tuned(dense: &Model, pruned: &Model, observe: &mut Observer) -> Held {
    let settings = TuneSettings { tune_epochs: 3, learning_rate: 1e-2, batch: 3 };
    tune_model(pruned, dense, &segments(dense), &settings, 7, observe).unwrap()
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
        let Held { blocks, report } = tuned(&dense, &pruned, &mut observer);
        drop(observer);
        let best = report.held_out[report.kept_epoch];
        assert!(report.held_out.iter().all(|loss| best <= *loss), "{name}: {report:?}");
        assert!(best < 0.9 * report.held_out[0], "{name}: {report:?}");
        assert!(report.training.is_sorted_by(|a, b| a > b), "{name}: {report:?}");
        let want: Vec<_> = report.held_out.iter().copied().enumerate().collect();
        assert_eq!(seen, want, "{name}");
        for (index, block) in blocks.iter().enumerate() {
            let before = pruned.block(index).unwrap();
            for (after, before) in block.linears().into_iter().zip(before.linears()) {
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
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| tuned(&dense, &pruned, &mut Observer::silent()))
    };
    let values = |held: &Held| -> Vec<Vec<f32>> {
        let weights = |block: &Block| -> Vec<Vec<f32>> {
            block.linears().iter().map(|linear| linear.weight.data.clone()).collect()
        };
        held.blocks.iter().flat_map(weights).collect()
    };
    assert_eq!(values(&run(1)), values(&run(3)));
}

#[test]
fn an_observers_error_ends_tuning() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, pruned) = models("llama3", temp.path());
    let mut observer = Observer::new(|event| match event {
        Event::Tuned { epoch: 1, .. } => Err("enough".into()),
        _ => Ok(()),
    });
    let settings = TuneSettings::default();
    let run = tune_model(&pruned, &dense, &segments(&dense), &settings, 0, &mut observer);
    assert!(run.is_err_and(|e| e.to_string().contains("enough")));
}

#[test]
fn models_that_do_not_belong_together_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (dense, _) = models("llama3", temp.path());
    let other = Model::open(&sparsellm_testing::assets().join("tiny-llama")).unwrap();
    let settings = TuneSettings::default();
    let text = segments(&dense);
    let run = tune_model(&dense, &other, &text, &settings, 0, &mut Observer::silent());
    assert!(run.is_err_and(|e| e.to_string().contains("vocabulary")));
}

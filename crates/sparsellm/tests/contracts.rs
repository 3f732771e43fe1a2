//! Tests the promises of the interfaces: a method takes two lines, an observer's error comes back
//! at once and unchanged, and every method prunes every family.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm::{
    Error, Evaluator, Event, Matrix, Method, Model, Observer, Pruner,
    methods::{Inputs, SparseLlm},
};
use sparsellm_checkpoint::Existing;
use sparsellm_prune::{METHODS, Selection};
use sparsellm_testing::{assets, fixture, token_file};

/// A method that prunes at random.
struct RandomMask;

impl Method for RandomMask {
    fn name(&self) -> &'static str {
        "random"
    }

    fn prune(&self, w: &mut Matrix, _: &Inputs, selection: &Selection) {
        let scores = sparsellm_testing::random(w.rows, w.cols, 7, 1.0).data;
        selection.prune(w, scores);
    }
}

fn stories(file: &str) -> String {
    assets().join("stories").join(file).to_string_lossy().into_owned()
}

#[test]
fn a_method_is_two_lines() {
    let temp = tempfile::tempdir().unwrap();
    let output = temp.path().join("out");
    let model = Model::open(&assets().join("tiny-llama")).unwrap();
    let report = Pruner::for_model(&model)
        .method(&RandomMask)
        .sparsity(0.4)
        .evaluate_on(vec![stories("test.txt")], Some(2))
        .seq_len(64)
        .write(&output)
        .unwrap();
    assert!((report.sparsity - 0.4).abs() < 0.01 && report.method == "random");
    assert!(report.perplexity[0].pruned > report.perplexity[0].dense);
}

/// An error of a type that only the observer knows.
#[derive(Debug, PartialEq)]
struct Mine(u32);

impl std::fmt::Display for Mine {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "mine")
    }
}

impl std::error::Error for Mine {}

#[test]
fn an_observers_error_ends_the_run_untouched_and_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let model = Model::open(&assets().join("tiny-llama")).unwrap();
    // An error of one of the library's kinds comes back, too: the library must not take it for its
    // own and try again with more damping.
    for kind in 0..3 {
        let mut epochs = 0;
        let output = temp.path().join(kind.to_string());
        let result = Pruner::for_model(&model)
            .method(&SparseLlm)
            .calibration(stories("calibration.txt"))
            .samples(2)
            .seq_len(64)
            .observer(Observer::new(|event| match (event, kind) {
                (Event::EpochDone { .. }, kind) => {
                    epochs += 1;
                    Err(match kind {
                        0 => Mine(3).into(),
                        1 => Error::Numerics("mine".into()).into(),
                        _ => Error::Input("mine".into()).into(),
                    })
                }
                _ => Ok(()),
            }))
            .write(&output);
        let error = result.unwrap_err();
        assert_eq!((epochs, error.to_string().as_str()), (1, "mine"));
        match (kind, error) {
            (0, Error::Observer(error)) => assert_eq!(error.downcast_ref(), Some(&Mine(3))),
            (1, Error::Numerics(_)) | (2, Error::Input(_)) => {}
            (_, other) => panic!("{other:?}"),
        }
        assert!(!output.exists());
    }
}

#[test]
fn every_family_is_pruned_by_every_method() {
    let temp = tempfile::tempdir().unwrap();
    for family in ["gemma2", "gpt-neox", "gpt-neox-serial", "qwen3", "opt-gelu", "opt-350m-style"] {
        let model = Model::open(&fixture(&format!("families/{family}"))).unwrap();
        let ids = token_file(temp.path(), model.shape().vocabulary);
        for method in METHODS {
            let at = format!("{family}, {}", method.name());
            let output = temp.path().join(&at);
            let report = Pruner::for_model(&model)
                .method(*method)
                .sparsity(0.5)
                .set("block_size", 16)
                .calibration(&ids)
                .samples(16)
                .seq_len(24)
                .existing(Existing { replace: true, resume: false })
                .write(&output)
                .unwrap_or_else(|e| panic!("{at}: {e}"));
            assert!((report.sparsity - 0.5).abs() < 0.02, "{at}: {}", report.sparsity);
            let pruned = Model::open(&output).unwrap();
            let perplexity = Evaluator::new(&pruned).seq_len(24).perplexity(&ids).unwrap();
            assert!(perplexity.perplexity.is_finite(), "{at}");
            // All other tensors equal the input's, bit for bit, but for norms and biases that were tuned.
            for (name, info) in model.checkpoint.tensors() {
                let same = model.checkpoint.source().bytes(name);
                let moves = info.shape.len() == 2 || report.tune.is_some();
                let may_differ = moves && name.contains("layers.");
                assert!(
                    may_differ || same == pruned.checkpoint.source().bytes(name),
                    "{at} {name}"
                );
            }
        }
    }
}

//! Tests that several ranks give the same bytes as one. The ranks are threads, so that the tests
//! need no MPI.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm::{
    Calibration, Error, Evaluator, Event, Gram, Matrix, Method, Model, Observer, Pattern, Pruner,
    Settings,
    methods::{Inputs, Magnitude},
};
use sparsellm_checkpoint::{Existing, Slot};
use sparsellm_data::Source;
use sparsellm_prune::{
    METHODS, Problem, Scope, Selection, Solver,
    hessian::{CholeskyFactor, InverseFactor},
};
use sparsellm_ranks::{Communicator, Local};
use sparsellm_testing::assets;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Barrier, Mutex},
};

/// A rank that is a thread of this process.
struct Thread {
    rank: usize,
    size: usize,
    shared: Arc<(Barrier, Mutex<Vec<Vec<u8>>>)>,
}

impl Thread {
    /// Exchanges bytes, and returns those of all ranks in the order of ranks.
    fn all(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let (barrier, slots) = &*self.shared;
        slots.lock().unwrap()[self.rank] = mine.to_vec();
        barrier.wait();
        let all = slots.lock().unwrap().clone();
        barrier.wait();
        all
    }
}

/// Reads bytes as values of type `T`, whatever their alignment.
fn values_of<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}

impl Communicator for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f64]) {
        let all = self.all(bytemuck::cast_slice(values));
        values.fill(0.0);
        for theirs in all {
            let theirs = values_of::<f64>(&theirs);
            values.iter_mut().zip(theirs).for_each(|(v, t)| *v += t);
        }
    }

    fn broadcast(&self, root: usize, bytes: &mut [u8]) {
        let all = self.all(bytes);
        bytes.copy_from_slice(&all[root]);
    }

    fn gather(&self, mine: &[f32], counts: &[usize], all: &mut [f32]) {
        let parts = self.all(bytemuck::cast_slice(mine));
        for (part, count) in parts.iter().zip(counts) {
            assert_eq!(part.len(), 4 * count);
        }
        all.copy_from_slice(&values_of::<f32>(&parts.concat()));
    }

    fn abort(&self, _: i32) {
        unreachable!("the library ends no rank")
    }
}

/// Runs `body` on each of `size` ranks, and returns their results.
fn on_ranks<R: Send>(size: usize, body: impl Fn(&dyn Communicator) -> R + Sync) -> Vec<R> {
    let shared = Arc::new((Barrier::new(size), Mutex::new(vec![Vec::new(); size])));
    std::thread::scope(|scope| {
        let (body, shared) = (&body, &shared);
        let start = |rank| {
            let ranks = Thread { rank, size, shared: shared.clone() };
            scope.spawn(move || {
                // A rank that panicked would leave the others waiting for it.
                catch_unwind(AssertUnwindSafe(|| body(&ranks)))
                    .unwrap_or_else(|_| std::process::exit(101))
            })
        };
        let started: Vec<_> = (0..size).map(start).collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn random(rows: usize, cols: usize, seed: u32) -> Matrix {
    let mut m = sparsellm_testing::random(rows, cols, seed, 1.0);
    m.data.iter_mut().for_each(|v| *v = v.powi(3));
    m
}

/// The number of tokens per piece.
const PIECE: usize = 10;

fn gram(x: &Matrix, ranks: &dyn Communicator) -> Gram {
    let mut gram = Gram::new(x.cols);
    // Each rank adds whole pieces, so that all sums are made of the same parts.
    for piece in ranks.share(x.rows.div_ceil(PIECE)) {
        gram.add(x.rows(piece * PIECE..((piece + 1) * PIECE).min(x.rows)));
    }
    gram.sum(ranks);
    gram
}

#[test]
fn shares_are_all_there_is() {
    for size in [1, 2, 3, 7] {
        for n in [0, 1, 2, 6, 7, 100] {
            let shares = on_ranks(size, |ranks| (ranks.share(n), ranks.largest_share(n)));
            let all: Vec<usize> = shares.iter().flat_map(|(share, _)| share.clone()).collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
            assert_eq!(shares.iter().map(|(s, _)| s.len()).max(), Some(shares[0].1));
        }
    }
}

#[test]
fn a_sum_over_tokens_does_not_depend_on_who_adds() {
    let x = random(101, 70, 1);
    let one = gram(&x, &Local).scaled(1.0);
    for size in [2, 3, 5] {
        let sums = on_ranks(size, |ranks| gram(&x, ranks));
        for sum in sums {
            assert_eq!(sum.tokens, 101);
            assert!(sum.scaled(1.0) == one, "{size} ranks");
        }
    }
}

/// The pieces do not depend on the number of ranks, and each belongs to one rank.
#[test]
fn factors_are_the_same_bytes_for_any_number_of_ranks() {
    let gram = gram(&random(300, 150, 2), &Local);
    let make = |ranks: &dyn Communicator| {
        let u = InverseFactor::new(&gram, 0.01, ranks).unwrap().u;
        let inverse = CholeskyFactor::of_gram(&gram, 1e-4, ranks).unwrap().inverse(ranks);
        // With too few tokens and no damping, all ranks raise the damping alike.
        let singular = self::gram(&random(20, 150, 3), &Local);
        let raised = InverseFactor::new(&singular, 0.0, ranks).unwrap();
        (u, inverse, raised.u, raised.damping)
    };
    let one = make(&Local);
    assert!(one.3 > 0.0);
    for size in [2, 3, 8] {
        for got in on_ranks(size, make) {
            assert!(got == one, "{size} ranks");
        }
    }
}

#[test]
fn masks_are_chosen_among_all_ranks_rows() {
    let x = random(200, 64, 4);
    let gram = gram(&x, &Local);
    // The cases include more ranks than rows, and scores that are tied in all rows.
    for (rows, size) in [(48, 2), (50, 3), (2, 5)] {
        let mut w = random(rows, 64, 5);
        w.data.iter_mut().step_by(3).for_each(|v| *v = 0.25);
        w.data.iter_mut().step_by(5).for_each(|v| *v = 0.0);
        for solver in [Solver::Obs, Solver::Admm] {
            for scope in [Scope::Block, Scope::Row, Scope::Matrix] {
                for pattern in ["0.5", "0.9", "2:4"] {
                    let pattern = match pattern.parse() {
                        Ok(rho) => Pattern::Unstructured(rho),
                        Err(_) => pattern.parse().unwrap(),
                    };
                    let settings = Settings {
                        pattern,
                        solver,
                        mask_scope: scope,
                        refit: 3,
                        keep_zeros: true,
                        ..Settings::published("sparsegpt")
                    };
                    let prune = |ranks: &dyn Communicator| {
                        let mut pruned = w.clone();
                        let weights: Vec<f32> = (0..rows).map(|i| 1.0 + i as f32).collect();
                        let problem = Problem::new(&gram, &settings, ranks).unwrap();
                        let (row_weights, held) = (Some(&weights[..]), settings.held(&w));
                        let held = held.as_deref();
                        let selection =
                            Selection { row_weights, held, ..settings.selection(ranks) };
                        problem.prune(&mut pruned, &selection);
                        let mut plain = w.clone();
                        problem.prune_by(&mut plain, |w, products, _| {
                            let inputs = Inputs { squared_norms: &[], problem: None, products };
                            Magnitude.prune(w, &inputs, &settings.selection(ranks));
                        });
                        (pruned, plain)
                    };
                    let one = prune(&Local);
                    let at = format!("{size} ranks, {rows} rows, {solver:?} {scope:?} {pattern}");
                    assert!(on_ranks(size, prune).iter().all(|got| *got == one), "{at}");
                }
            }
        }
    }
}

/// The pruned linears of a model and its perplexity, as one rank sees them.
#[derive(Clone, PartialEq)]
struct Pruned {
    linears: Vec<Vec<f32>>,
    perplexity: f64,
}

/// Prunes three layers. With `stop`, the run is stopped after two layers and then resumed.
fn pruned(
    name: &str,
    (method, tune): (&'static dyn Method, &str),
    stop: bool,
    output: &Path,
    ranks: &dyn Communicator,
) -> Pruned {
    let model = Model::open(&assets().join(name)).unwrap();
    let text = |file: &str| assets().join("stories").join(file).to_string_lossy().into_owned();
    let source = Source::file(&text("calibration.txt")).unwrap();
    let observe = &mut Observer::silent();
    let segments = source.segments(50, 128, 0, &model.checkpoint, observe).unwrap();
    let calibration = Calibration::new(segments);
    let run = |stop: bool| {
        let mut resumed = false;
        let result = Pruner::for_model(&model)
            .method(method)
            .sparsity(0.6)
            .set("tune", tune)
            .set("tune_epochs", 1)
            .set("batch", 4)
            .layers(0..3)
            .shared_calibration(&calibration)
            .existing(Existing { replace: false, resume: true })
            .ranks(ranks)
            .observer(Observer::new(|event| {
                resumed |= matches!(event, Event::Resumed { .. });
                match event {
                    Event::LayerDone { index: 1, .. } if stop => Err(Error::Interrupted.into()),
                    _ => Ok(()),
                }
            }))
            .write(output);
        (result, resumed)
    };
    if stop {
        // The run ends in the middle, and its finished layers stay.
        assert!(matches!(run(true).0, Err(Error::Interrupted)));
        ranks.wait_for_rank_zero();
    }
    let (result, resumed) = run(false);
    result.unwrap();
    assert_eq!(resumed, stop);
    ranks.wait_for_rank_zero();
    let pruned = Model::open(output).unwrap();
    let mut evaluator = Evaluator::new(&pruned).seq_len(128).max_windows(9).ranks(ranks);
    let perplexity = evaluator.perplexity(&text("test.txt")).unwrap().perplexity;
    let slots: Vec<Slot> = (0..3)
        .flat_map(|i| {
            let block = pruned.outline(i).unwrap();
            block.linears().into_iter().map(|l| l.slot.clone()).collect::<Vec<_>>()
        })
        .collect();
    let linears = slots.iter().map(|slot| pruned.checkpoint.slot(slot).unwrap().data);
    Pruned { linears: linears.collect(), perplexity }
}

#[test]
fn a_model_is_pruned_alike_by_any_number_of_ranks() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["tiny-llama", "tiny-opt"] {
        for method in METHODS {
            // Once is enough for tuning.
            let tune = if method.name() == "wanda" { "both" } else { "none" };
            let output = |what: &str| temp.path().join(format!("{name}-{}-{what}", method.name()));
            let one = pruned(name, (*method, tune), false, &output("one"), &Local);
            // Five ranks are more than the text has parts.
            for size in [2, 5] {
                let at = format!("{name}, {}, {size} ranks", method.name());
                let here = output(&format!("{size}-stopped"));
                let all = on_ranks(size, |ranks| pruned(name, (*method, tune), true, &here, ranks));
                assert!(all.iter().all(|rank| *rank == all[0]), "{at}: ranks differ");
                assert!(all[0].linears == one.linears, "{at}: weights differ from one's");
                // The perplexities may differ slightly: losses are added in another order.
                let off = (all[0].perplexity / one.perplexity - 1.0).abs();
                assert!(off < 1e-12, "{at}: perplexity off by {off:.2e}");
            }
        }
    }
}

//! Several ranks do what one does, to the same bytes: here they are threads, so
//! that it is seen without MPI.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rand_mt::Mt;
use sparsellm::{
    Method, Model, Pattern, Settings, Tokenizer, Writer,
    checkpoint::Existing,
    linalg::{CholeskyFactor, Gram, InverseFactor, Matrix},
    perplexity, pipeline,
    prune::{Options, Problem, Scope, Solver, magnitude},
    ranks::{Communicator, Local},
    text::Source,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Barrier, Mutex},
};

/// Ranks that are threads of this process.
struct Thread {
    rank: usize,
    size: usize,
    shared: Arc<(Barrier, Mutex<Vec<Vec<u8>>>)>,
}

impl Thread {
    /// Everyone's bytes, in the order of ranks.
    fn all(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let (barrier, slots) = &*self.shared;
        slots.lock().unwrap()[self.rank] = mine.to_vec();
        barrier.wait();
        let all = slots.lock().unwrap().clone();
        barrier.wait();
        all
    }
}

/// Bytes as the values they are, wherever they lie.
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

/// What `body` gives on each of `size` ranks.
fn on_ranks<R: Send>(size: usize, body: impl Fn(&dyn Communicator) -> R + Sync) -> Vec<R> {
    let shared = Arc::new((Barrier::new(size), Mutex::new(vec![Vec::new(); size])));
    std::thread::scope(|scope| {
        let (body, shared) = (&body, &shared);
        let start = |rank| {
            let ranks = Thread { rank, size, shared: shared.clone() };
            scope.spawn(move || {
                // The others would wait for it.
                catch_unwind(AssertUnwindSafe(|| body(&ranks)))
                    .unwrap_or_else(|_| std::process::exit(101))
            })
        };
        let started: Vec<_> = (0..size).map(start).collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn random(rows: usize, cols: usize, seed: u32) -> Matrix {
    let mut rng = Mt::new(seed);
    let mut value = || (rng.next_u32() as f32 / 2f32.powi(31) - 1.0).powi(3);
    Matrix::new(rows, cols, (0..rows * cols).map(|_| value()).collect())
}

/// Tokens of a piece.
const PIECE: usize = 10;

fn gram(x: &Matrix, ranks: &dyn Communicator) -> Gram {
    let mut gram = Gram::new(x.cols);
    // Pieces are what is added up.
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

/// The pieces are the same, and each is one rank's.
#[test]
fn factors_are_the_same_bytes_for_any_number_of_ranks() {
    let gram = gram(&random(300, 150, 2), &Local);
    let make = |ranks: &dyn Communicator| {
        let u = InverseFactor::new(&gram, 0.01, ranks).unwrap().u;
        let inverse = CholeskyFactor::of_gram(&gram, 1e-4, ranks).unwrap().inverse(ranks);
        // Without enough tokens, and no damping: raised on all ranks alike.
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
    // More ranks than rows, and ties in all of them.
    for (rows, size) in [(48, 2), (50, 3), (2, 5)] {
        let mut w = random(rows, 64, 5);
        w.data.iter_mut().step_by(3).for_each(|v| *v = 0.25);
        for solver in [Solver::Obs, Solver::Admm] {
            for scope in [Scope::Block, Scope::Row, Scope::Matrix] {
                for pattern in ["0.5", "0.9", "2:4"] {
                    let pattern = match pattern.parse() {
                        Ok(rho) => Pattern::Unstructured(rho),
                        Err(_) => pattern.parse().unwrap(),
                    };
                    let options = Options { solver, scope, refit: 3, ..Options::default() };
                    let prune = |ranks: &dyn Communicator| {
                        let mut pruned = w.clone();
                        let weights: Vec<f32> = (0..rows).map(|i| 1.0 + i as f32).collect();
                        let problem = Problem::new(&gram, options, ranks).unwrap();
                        problem.prune(&mut pruned, pattern, Some(&weights));
                        let mut plain = w.clone();
                        problem.prune_by(&mut plain, |w, _, _| magnitude::prune(w, pattern, ranks));
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

/// A model's pruned linears, and its perplexity, as one rank sees them.
#[derive(Clone, PartialEq)]
struct Pruned {
    linears: Vec<Vec<f32>>,
    perplexity: f64,
}

fn pruned(
    name: &str,
    method: Method,
    resume: bool,
    output: &Path,
    ranks: &dyn Communicator,
) -> Pruned {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let model = Model::open(&assets.join(name)).unwrap();
    let tokenizer = || Tokenizer::of(&model.checkpoint);
    let text = |file: &str| Source::file(&assets.join("stories").join(file).to_string_lossy());
    let segments = text("calibration.txt").unwrap().segments(50, 128, 0, tokenizer).unwrap();
    let windows = text("test.txt").unwrap().windows(128, Some(9), tokenizer).unwrap();
    let calibration = pipeline::Calibration::new(segments);
    let settings = Settings {
        pattern: Pattern::Unstructured(0.6),
        layers: Some(0..3),
        ..Settings::of(method)
    };
    let existing = Existing { replace: true, resume };
    let run = serde_json::json!({});
    let mut writer = Writer::create(&model.checkpoint, output, &run, existing, ranks).unwrap();
    let mut resumed = false;
    let layers = pipeline::prune(
        &model,
        Some(&calibration),
        &settings,
        None,
        &mut writer,
        ranks,
        &mut |event| {
            resumed |= matches!(event, sparsellm::Event::Resumed { .. });
            match event {
                sparsellm::Event::LayerDone { report } if report.index == 1 && !resume => {
                    Err(sparsellm::Error::Stopped)
                }
                _ => Ok(()),
            }
        },
    );
    if !resume {
        // Ended in the middle; what is done stays.
        assert!(matches!(layers, Err(sparsellm::Error::Stopped)));
        drop(writer);
        ranks.wait_for_first();
        return pruned(name, method, true, output, ranks);
    }
    assert!(resumed || !output.to_string_lossy().contains("stopped"));
    let finished = writer.finish(&serde_json::json!({ "layers": layers.unwrap() })).unwrap();
    let pruned = Model::open(finished.folder()).unwrap();
    let perplexity = perplexity(&pruned, &windows, ranks, |_, _| Ok(())).unwrap().perplexity;
    let layers = (0..3).map(|i| pruned.layer(i).unwrap());
    let linears =
        layers.flat_map(|l| l.all_linears().map(|l| l.weight.data.clone()).collect::<Vec<_>>());
    Pruned { linears: linears.collect(), perplexity }
}

#[test]
fn a_model_is_pruned_alike_by_any_number_of_ranks() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["tiny-llama", "tiny-opt"] {
        for method in Method::ALL {
            let output = |what: &str| temp.path().join(format!("{name}-{}-{what}", method.name()));
            let one = pruned(name, method, true, &output("one"), &Local);
            // More ranks than there are parts of the text, too.
            for size in [2, 5] {
                let at = format!("{name}, {}, {size} ranks", method.name());
                let here = output(&format!("{size}-stopped"));
                let all = on_ranks(size, |ranks| pruned(name, method, false, &here, ranks));
                assert!(all.iter().all(|rank| *rank == all[0]), "{at}: ranks differ");
                assert!(all[0].linears == one.linears, "{at}: weights differ from one's");
                // The losses are added in another order.
                let off = (all[0].perplexity / one.perplexity - 1.0).abs();
                assert!(off < 1e-12, "{at}: perplexity off by {off:.2e}");
            }
        }
    }
}

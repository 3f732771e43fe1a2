//! The memory law of tuning the whole model (ARCHITECTURE.md), measured by a counting allocator.
#![allow(clippy::unwrap_used)]

use sparsellm::{Pruner, StateType, Tuner, methods::Magnitude};
use sparsellm_base::{Event, Observer};
use sparsellm_prune::memory::PROGRAM;
use sparsellm_testing::{Counting, assets};
use std::path::Path;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// What a run said that it needs, in bytes, whether that includes moments in files, what it
/// allocated at most, and the weights that it wrote.
struct Run {
    needed: usize,
    spilled: bool,
    used: usize,
    weights: Vec<u8>,
}

fn tune(temp: &Path, name: &str, state: StateType, memory: Option<usize>) -> Run {
    let (dense, pruned) = (assets().join("tiny-llama"), temp.join("pruned"));
    let (mut needed, mut spilled) = (0, false);
    let before = ALLOCATOR.start();
    Tuner::new(pruned.display().to_string(), dense.display().to_string())
        .calibration(assets().join("stories/calibration.txt").display().to_string())
        .samples(32)
        .seq_len(256)
        .epochs(1)
        .state(state)
        .memory(memory)
        .observer(Observer::new(|event| {
            if let Event::Memory { needed: n, spilled: s } = event {
                (needed, spilled) = (n, s);
            }
            Ok(())
        }))
        .write(&temp.join(name))
        .unwrap();
    let weights = std::fs::read(temp.join(name).join("model.safetensors")).unwrap();
    Run { needed: needed - PROGRAM, spilled, used: ALLOCATOR.peak() - before, weights }
}

#[test]
fn peak_memory_follows_the_law() {
    let temp = tempfile::tempdir().unwrap();
    let dense = assets().join("tiny-llama").display().to_string();
    Pruner::new(&dense)
        .method(&Magnitude)
        .sparsity(0.5)
        .write(&temp.path().join("pruned"))
        .unwrap();
    // The products' libraries keep packing buffers per thread, sized for the processor's caches and
    // mostly never touched: a first run makes them.
    tune(temp.path(), "first", StateType::F32, None);
    let whole = tune(temp.path(), "memory", StateType::F32, None);
    let half = tune(temp.path(), "bf16", StateType::Bf16, None);
    let limit = PROGRAM + whole.needed - (whole.needed - half.needed) / 2;
    let spilled = tune(temp.path(), "files", StateType::F32, Some(limit));
    assert!((whole.spilled, half.spilled, spilled.spilled) == (false, false, true));
    assert!(spilled.needed < half.needed && half.needed < whole.needed);
    for (name, run) in [("memory", &whole), ("bf16", &half), ("files", &spilled)] {
        let Run { needed, used, .. } = *run;
        eprintln!("{name}: used {used} law {needed} {:.3}", used as f64 / needed as f64);
        assert!(used <= needed, "{name}: {used} > {needed}");
        assert!(2 * used >= needed, "{name}: {needed} is loose: {used}");
    }
    // Moments in files are not in memory, but for a small piece of each layer's.
    let moments = whole.needed - spilled.needed;
    assert!(whole.used - spilled.used > moments * 8 / 10, "{} {}", whole.used, spilled.used);
    assert!(whole.weights == spilled.weights && whole.weights != half.weights);
}

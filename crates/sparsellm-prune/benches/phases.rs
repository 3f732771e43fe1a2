//! Each phase of a run (docs/performance.md) at the shapes of real models.
//!
//! ```text
//! cargo bench                  # everything: some ten minutes on two cores
//! cargo bench -- smollm2       # one model's shapes
//! cargo bench -- gram          # one phase
//! ```
//!
//! "item/s" are floating-point operations a second where a phase consists of
//! them, and elements otherwise.

use divan::{Bencher, black_box, counter::ItemsCount};
use rand_mt::Mt;
use sparsellm_model::{
    Activation, Attention, Block, Ffn, HalfNorms, Linear, Norm, Positions, Residual, Rope, Stored,
};
use sparsellm_prune::{
    Gram, Pattern, Problem, Scope, Settings, Solver,
    hessian::InverseFactor,
    sparsellm::{Gated, ReluUpdates, Streaming, Task, Updates, prune_network},
};
use sparsellm_ranks::Local;
use sparsellm_tensor::{Matrix, Silu, TILE, Weights, matmul_nt, tiles};
use std::{fmt, sync::Arc};

/// Calibration tokens per measurement: one segment, and one chunk.
const TOKENS: usize = 2048;

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    gated: bool,
    d: usize,
    d_ff: usize,
    heads: usize,
    kv_heads: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { name: "smollm2-135m", gated: true, d: 576, d_ff: 1536, heads: 9, kv_heads: 3 },
    Shape { name: "opt-125m", gated: false, d: 768, d_ff: 3072, heads: 12, kv_heads: 12 },
    Shape { name: "opt-1.3b", gated: false, d: 2048, d_ff: 8192, heads: 32, kv_heads: 32 },
    Shape { name: "llama-2-7b", gated: true, d: 4096, d_ff: 11008, heads: 32, kv_heads: 32 },
];

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn random(rows: usize, cols: usize, seed: u32) -> Matrix {
    let (mut rng, scale) = (Mt::new(seed), 2f32.powi(-31) * (3.0 / cols as f32).sqrt());
    let data = (0..rows * cols).map(|_| (rng.next_u32() as i32) as f32 * scale);
    Matrix::new(rows, cols, data.collect())
}

/// Activations: of order one.
fn tokens(cols: usize) -> Matrix {
    let mut x = random(TOKENS, cols, 9);
    x.data.iter_mut().for_each(|v| *v *= (cols as f32).sqrt());
    x
}

/// Random weights, all but every third of them zero where `sparse`.
fn linear(rows: usize, cols: usize, sparse: bool) -> Linear {
    let mut weight = random(rows, cols, (rows + cols) as u32);
    if sparse {
        let mut rng = Mt::new(1);
        weight.data.iter_mut().filter(|_| rng.next_u32() % 10 < 7).for_each(|v| *v = 0.0);
    }
    Linear::new("bench", weight, None)
}

fn feed_forward(shape: Shape, sparse: bool) -> Ffn {
    let Shape { d, d_ff, .. } = shape;
    match shape.gated {
        true => Ffn::Gated {
            gate: linear(d_ff, d, sparse),
            up: linear(d_ff, d, sparse),
            down: linear(d, d_ff, sparse),
            activation: Activation::Silu,
        },
        false => Ffn::Plain {
            fc1: linear(d_ff, d, sparse),
            fc2: linear(d, d_ff, sparse),
            activation: Activation::Relu,
        },
    }
}

fn block(shape: Shape, sparse: bool) -> Block {
    let Shape { d, heads, kv_heads, .. } = shape;
    let (head_dim, norm) =
        (d / heads, Norm::Rms { weight: vec![1.0; d], eps: 1e-5, stored: Stored::default() });
    let kv = kv_heads * head_dim;
    let norms = HalfNorms { input: Some(norm), ..HalfNorms::default() };
    Block {
        attention: Attention {
            q: linear(d, d, sparse),
            k: linear(kv, d, sparse),
            v: linear(kv, d, sparse),
            o: linear(d, d, sparse),
            heads,
            kv_heads,
            head_dim,
            q_norm: None,
            k_norm: None,
            rope: shape.gated.then(|| Arc::new(Rope::new(10_000.0, head_dim))),
            window: None,
            scale: Attention::usual_scale(head_dim),
            softcap: None,
        },
        ffn: feed_forward(shape, sparse),
        attention_norms: norms.clone(),
        ffn_norms: norms,
        residual: Residual::Serial,
    }
}

/// One layer run on one segment; the operations are those of dense weights.
fn forward(bencher: Bencher, shape: Shape, sparse: bool) {
    let Shape { d, d_ff, heads, kv_heads, gated, .. } = shape;
    let (block, x) = (block(shape, sparse), tokens(d));
    let attention = 2 * d * d + 2 * d * (d / heads * kv_heads);
    let weights = attention + (2 + usize::from(gated)) * d * d_ff;
    bencher.counter(ItemsCount::new(2 * TOKENS * (weights + TOKENS * d))).bench_local(|| {
        block.forward(&mut x.clone(), Positions::segments(TOKENS), None, |_, _| {});
    });
}

#[divan::bench(args = SHAPES, sample_count = 3)]
fn forward_dense(bencher: Bencher, shape: Shape) {
    forward(bencher, shape, false);
}

#[divan::bench(args = SHAPES, sample_count = 3)]
fn forward_pruned_to_70_percent(bencher: Bencher, shape: Shape) {
    forward(bencher, shape, true);
}

/// `aᵀa`, one triangle.
#[divan::bench(args = SHAPES, sample_count = 3)]
fn gram(bencher: Bencher, shape: Shape) {
    let (mut gram, a) = (Gram::new(shape.d_ff), tokens(shape.d_ff));
    let flops = TOKENS * shape.d_ff * (shape.d_ff + 1);
    bencher.counter(ItemsCount::new(flops)).bench_local(|| gram.add(a.view()));
}

fn gram_of(width: usize) -> Gram {
    let mut gram = Gram::new(width);
    gram.add(tokens(width).view());
    gram
}

/// U of the last linear's Hessian: a Cholesky factor and the inverse of a triangle.
#[divan::bench(args = SHAPES, sample_count = 3)]
fn factor(bencher: Bencher, shape: Shape) {
    let gram = gram_of(shape.d_ff);
    let flops = 2 * shape.d_ff.pow(3) / 3;
    bencher
        .counter(ItemsCount::new(flops))
        .bench_local(|| black_box(InverseFactor::new(&gram, 0.01, &Local)));
}

/// The first linear pruned by one solver; elements are weights.
fn solve(bencher: Bencher, shape: Shape, solver: Solver, scope: Scope, pattern: Pattern) {
    let settings =
        Settings { solver, mask_scope: scope, pattern, ..Settings::published("sparsegpt") };
    let Some(problem) = Problem::new(&gram_of(shape.d), &settings, &Local) else { return };
    let w = random(shape.d_ff, shape.d, 4);
    bencher.counter(ItemsCount::new(w.data.len())).with_inputs(|| w.clone()).bench_local_values(
        |mut w| {
            problem.prune(&mut w, &settings.selection(&Local));
            w
        },
    );
}

#[divan::bench(args = SHAPES, sample_count = 3)]
fn solve_obs(bencher: Bencher, shape: Shape) {
    solve(bencher, shape, Solver::Obs, Scope::Block, Pattern::Unstructured(0.7));
}

#[divan::bench(args = SHAPES, sample_count = 3)]
fn solve_obs_2_of_4(bencher: Bencher, shape: Shape) {
    solve(bencher, shape, Solver::Obs, Scope::Block, Pattern::NofM { zeros: 2, of: 4 });
}

#[divan::bench(args = SHAPES, sample_count = 3)]
fn solve_admm(bencher: Bencher, shape: Shape) {
    solve(bencher, shape, Solver::Admm, Scope::Matrix, Pattern::Unstructured(0.7));
}

/// Least-squares weights of the last linear.
#[divan::bench(args = SHAPES, sample_count = 3)]
fn weights(bencher: Bencher, shape: Shape) {
    let gram = gram_of(shape.d_ff);
    let Some(factor) = InverseFactor::new(&gram, 0.01, &Local) else { return };
    let w = random(shape.d, shape.d_ff, 5);
    let flops = 4 * shape.d * shape.d_ff.pow(2);
    bencher
        .counter(ItemsCount::new(flops))
        .bench_local(|| black_box(factor.least_squares(w.view(), TOKENS, w.view())));
}

/// z (and s) of one chunk; elements are those of z.
#[divan::bench(args = SHAPES, sample_count = 3)]
fn z_and_s(bencher: Bencher, shape: Shape) {
    let (k, d_ff) = (1 + usize::from(shape.gated), shape.d_ff);
    let (a, pre, state) = (tokens(d_ff), tokens(k * d_ff), tokens(k * d_ff));
    let bencher = bencher.counter(ItemsCount::new(a.data.len())).with_inputs(|| state.clone());
    let run = |updates: &dyn Updates, mut state: Matrix| {
        tiles(TOKENS, [&mut state.data], |rows, [state]| {
            for (t, state) in rows.zip(state.chunks_exact_mut(k * d_ff)) {
                updates.update(a.row(t), pre.row(t), state);
            }
        });
        state
    };
    match shape.gated {
        true => {
            bencher.bench_local_values(|s| run(&Gated { alpha: 5.0, beta: 5.0, f: Silu }, s));
        }
        false => bencher.bench_local_values(|s| run(&ReluUpdates { alpha: 0.1, beta: 0.1 }, s)),
    }
}

/// The whole of SparseLLM on one feed-forward network and one chunk of tokens:
/// two epochs, with one pass that updates between them.
#[divan::bench(args = SHAPES, sample_count = 1)]
fn sparsellm_two_epochs(bencher: Bencher, shape: Shape) {
    let settings = Settings {
        alpha: Some(1.0),
        beta: Some(1.0),
        epochs: 2,
        ..Settings::published("sparsellm")
    };
    let (ffn, x) = (feed_forward(shape, false), tokens(shape.d));
    let streaming = Streaming::in_memory(TOKENS);
    let task =
        Task { x: &x, shares: &[], settings: &settings, streaming: &streaming, ranks: &Local };
    bencher.with_inputs(|| ffn.clone()).bench_local_values(|mut ffn| {
        prune_network(&mut ffn, None, &task, &mut |_, _| Ok(())).map(|_| ffn)
    });
}

/// A first linear's product on one chunk, dense and with what is left of it; the
/// operations are those of dense weights.
#[divan::bench(args = SHAPES, consts = [0, 50, 70, 90], sample_count = 5)]
fn product_at<const ZEROS: u32>(bencher: Bencher, shape: Shape) {
    let (x, mut w) = (tokens(shape.d), random(shape.d_ff, shape.d, 6));
    let mut rng = Mt::new(2);
    w.data.iter_mut().filter(|_| rng.next_u32() % 1000 < 10 * ZEROS + 1).for_each(|v| *v = 0.0);
    let w = Weights::new(w);
    let mut y = Matrix::zeros(TOKENS, shape.d_ff);
    let flops = 2 * TOKENS * w.data.len();
    bencher.counter(ItemsCount::new(flops)).bench_local(|| {
        tiles(TOKENS, [&mut y.data], |rows, [y]| {
            w.product_tile(x.rows(rows), y, 0, false, 1.0);
        });
    });
}

/// What the machine's matrix product reaches: the peak that the others are held
/// against.
#[divan::bench(sample_count = 10)]
fn peak(bencher: Bencher) {
    let a = random(1536, 1536, 7);
    let flops = 2 * 1536usize.pow(3);
    bencher
        .counter(ItemsCount::new(flops))
        .bench_local(|| black_box(matmul_nt(a.view(), a.view())));
}

fn main() {
    assert_eq!(TOKENS % TILE, 0, "a chunk is whole tiles");
    divan::main();
}

//! Where a run's time goes: per phase its seconds, the flops done in it and the
//! fewest bytes they can move. Phases are entered on the thread that drives the
//! run, and in the tasks of a parallel region; the products of `linalg` count themselves.

use crate::linalg::{Matrix, matmul};
use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// A part of a run. The names are those of ARCHITECTURE.md and
/// docs/performance.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Weights from the files, to f32.
    Read,
    /// Layers run on hidden states, dense or pruned.
    Forward,
    /// Sums over tokens: `XᵀX`, `aᵀa`, `Yᵀa`, `zᵀX`.
    Gram,
    /// Factors and inverses of Hessians.
    Factor,
    /// The solver: the OBS sweep, or ADMM, and the refit.
    Solve,
    /// Least-squares weights of the global method.
    Weights,
    /// The a-update of the global method.
    A,
    /// The z- and s-updates of the global method.
    Z,
    /// Sums, factors and rows told to the other ranks, and waiting for theirs.
    Exchange,
    /// Weights to their stored type and to the disk.
    Write,
    /// Whatever else there is.
    Rest,
}

/// What one phase took.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Entry {
    /// Wall-clock time, without that of phases inside.
    pub seconds: f64,
    /// Floating-point operations of its products and factors, a multiply-add
    /// being two.
    pub flops: f64,
    /// Bytes of their operands and results, each once.
    pub bytes: f64,
}

struct Sums {
    nanoseconds: AtomicU64,
    flops: AtomicU64,
    bytes: AtomicU64,
}

impl Phase {
    /// Every phase, in the order of a layer.
    pub const ALL: [Phase; 11] = [
        Phase::Read,
        Phase::Forward,
        Phase::Gram,
        Phase::Factor,
        Phase::Solve,
        Phase::Weights,
        Phase::A,
        Phase::Z,
        Phase::Exchange,
        Phase::Write,
        Phase::Rest,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Read => "read",
            Phase::Forward => "forward",
            Phase::Gram => "gram",
            Phase::Factor => "factor",
            Phase::Solve => "solve",
            Phase::Weights => "weights",
            Phase::A => "a",
            Phase::Z => "z, s",
            Phase::Exchange => "exchange",
            Phase::Write => "write",
            Phase::Rest => "rest",
        }
    }

    /// What it took so far in this process.
    pub fn entry(self) -> Entry {
        let sums = &LEDGER[self as usize];
        let load = |sum: &AtomicU64| sum.load(Relaxed) as f64;
        Entry {
            seconds: load(&sums.nanoseconds) / 1e9,
            flops: load(&sums.flops),
            bytes: load(&sums.bytes),
        }
    }
}

static LEDGER: [Sums; Phase::ALL.len()] = [const {
    Sums { nanoseconds: AtomicU64::new(0), flops: AtomicU64::new(0), bytes: AtomicU64::new(0) }
}; Phase::ALL.len()];

thread_local! {
    /// The phase this thread is in, and since when.
    static CURRENT: Cell<Option<(Phase, Instant)>> = const { Cell::new(None) };
    /// In a task of a parallel region, how many threads share the clock.
    static SHARED_BY: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What tasks have booked of the clock of the phase around their region.
static LENT: AtomicU64 = AtomicU64::new(0);

/// A parallel region whose tasks enter phases of their own: each books its share
/// of the clock, and the phase around the region is left with what no task used.
pub(crate) struct Region {
    phase: Option<Phase>,
    threads: u64,
}

impl Region {
    /// A region of the phase this thread is in.
    pub fn here() -> Region {
        let phase = CURRENT.get().map(|(phase, _)| phase);
        Region { phase, threads: rayon::current_num_threads() as u64 }
    }

    /// Runs a task of the region, on whichever thread has it.
    pub fn task<R>(&self, body: impl FnOnce() -> R) -> R {
        let current = CURRENT.replace(self.phase.map(|phase| (phase, Instant::now())));
        let shared_by = SHARED_BY.replace(Some(self.threads));
        let result = body();
        switch(None);
        CURRENT.set(current);
        SHARED_BY.set(shared_by);
        result
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let lent = Duration::from_nanos(LENT.swap(0, Relaxed));
        CURRENT.set(CURRENT.get().map(|(phase, since)| (phase, since + lent)));
    }
}

/// Runs `body` as part of `phase`; the clock of the phase around it stands
/// still meanwhile.
pub fn phase<R>(phase: Phase, body: impl FnOnce() -> R) -> R {
    let around = CURRENT.get();
    switch(Some(phase));
    let result = body();
    switch(around.map(|(phase, _)| phase));
    result
}

/// Books the time since the last switch, and enters `next`.
fn switch(next: Option<Phase>) {
    let now = Instant::now();
    if let Some((phase, since)) = CURRENT.get() {
        let spent = now.duration_since(since).as_nanos() as u64;
        let share = spent / SHARED_BY.get().unwrap_or(1);
        LEDGER[phase as usize].nanoseconds.fetch_add(share, Relaxed);
        if SHARED_BY.get().is_some() {
            LENT.fetch_add(share, Relaxed);
        }
    }
    CURRENT.set(next.map(|phase| (phase, now)));
}

/// What this machine's matrix product reaches, in flop/s: the best within a
/// second of products of large square matrices, on the threads that a run would
/// use.
pub fn gemm_peak() -> f64 {
    const N: usize = 1536;
    let a = Matrix::new(N, N, (0..N * N).map(|i| (i % 7) as f32).collect());
    let (begun, mut best) = (Instant::now(), f64::INFINITY);
    while begun.elapsed().as_secs_f64() < 1.0 {
        let started = Instant::now();
        std::hint::black_box(matmul(a.view(), a.view()));
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (N as f64).powi(3) / best
}

/// Counts `flops` on `values` f32 values (operands and results) towards the
/// phase this thread is in.
pub(crate) fn count(flops: usize, values: usize) {
    let phase = CURRENT.get().map_or(Phase::Rest, |(phase, _)| phase);
    let sums = &LEDGER[phase as usize];
    sums.flops.fetch_add(flops as u64, Relaxed);
    sums.bytes.fetch_add(4 * values as u64, Relaxed);
}

//! Where a run's time goes: for each phase, its seconds, its floating-point operations, and a
//! lower bound on the bytes that they move.
//!
//! A [`Ledger`] is a value. It accumulates what happens while it is
//! [recording](Ledger::record), on the recording thread and in the parallel [regions](Region)
//! entered from it. Two runs with a ledger each do not mix, and without a ledger nothing is
//! recorded.
//!
//! ```
//! use sparsellm_tensor::{Matrix, matmul, profile::{Ledger, Phase, phase}};
//!
//! let (ledger, a) = (Ledger::default(), Matrix::zeros(8, 8));
//! ledger.record(|| phase(Phase::Solve, || matmul(a.view(), a.view())));
//! assert_eq!(ledger.entry(Phase::Solve).flops, 1024.0); // 2·8³
//! ```

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A phase of a run. The names are those used in ARCHITECTURE.md and docs/performance.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading weights from the files and converting them to f32.
    Read,
    /// Running layers, dense or pruned, on hidden states.
    Forward,
    /// Sums over tokens: `XᵀX`, `aᵀa`, `Yᵀa`, `zᵀX`.
    Gram,
    /// Factorizing and inverting Hessians.
    Factor,
    /// The solver: the OBS sweep, or ADMM, and the refit.
    Solve,
    /// The least-squares weights of the global method.
    Weights,
    /// The a-update of the global method.
    A,
    /// The z- and s-updates of the global method.
    Z,
    /// Tuning what is kept.
    Tune,
    /// Exchanging sums, factors and rows with the other ranks, including the wait for theirs.
    Exchange,
    /// Converting weights to their stored type and writing them to disk.
    Write,
    /// Everything else.
    Rest,
}

/// The cost of one phase.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Entry {
    /// Wall-clock time, excluding nested phases.
    pub seconds: f64,
    /// Floating-point operations in its products and factorizations; a multiply-add counts as
    /// two.
    pub flops: f64,
    /// Bytes of their operands and results, each counted once.
    pub bytes: f64,
}

#[derive(Default)]
struct Sums {
    nanoseconds: AtomicU64,
    flops: AtomicU64,
    bytes: AtomicU64,
}

impl Phase {
    /// Every phase, in the order in which a layer goes through them.
    pub const ALL: [Phase; 12] = [
        Phase::Read,
        Phase::Forward,
        Phase::Gram,
        Phase::Factor,
        Phase::Solve,
        Phase::Weights,
        Phase::A,
        Phase::Z,
        Phase::Tune,
        Phase::Exchange,
        Phase::Write,
        Phase::Rest,
    ];

    /// The phase's name.
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
            Phase::Tune => "tune",
            Phase::Exchange => "exchange",
            Phase::Write => "write",
            Phase::Rest => "rest",
        }
    }
}

/// Accumulates the cost of each phase.
#[derive(Clone, Default)]
pub struct Ledger {
    sums: Arc<[Sums; Phase::ALL.len()]>,
}

impl Ledger {
    /// Runs `body` on this thread and records the cost of its phases.
    pub fn record<R>(&self, body: impl FnOnce() -> R) -> R {
        let scope = Scope { ledger: self.clone(), clock: None, region: None };
        let outer = SCOPE.replace(Some(scope));
        let result = body();
        SCOPE.set(outer);
        result
    }

    /// The cost of a phase so far.
    pub fn entry(&self, phase: Phase) -> Entry {
        let sums = &self.sums[phase as usize];
        let load = |sum: &AtomicU64| sum.load(Relaxed) as f64;
        Entry {
            seconds: load(&sums.nanoseconds) / 1e9,
            flops: load(&sums.flops),
            bytes: load(&sums.bytes),
        }
    }
}

/// Where a thread's time is recorded.
struct Scope {
    ledger: Ledger,
    /// The phase that the thread is in, and when it entered it.
    clock: Option<(Phase, Instant)>,
    /// The parallel region, if the thread is running one of its tasks.
    region: Option<Arc<RegionClock>>,
}

/// The clock shared by the tasks of a parallel region.
struct RegionClock {
    threads: u64,
    /// Nanoseconds recorded by the tasks.
    booked: AtomicU64,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// A parallel region whose tasks enter phases of their own. Each task records its share of
/// the wall-clock time; the enclosing phase keeps the time that no task used.
pub struct Region {
    around: Option<(Ledger, Option<Phase>)>,
    clock: Arc<RegionClock>,
}

impl Region {
    /// Opens a region within the current phase of this thread.
    pub fn here() -> Region {
        let around = SCOPE.with_borrow(|scope| {
            let scope = scope.as_ref()?;
            Some((scope.ledger.clone(), scope.clock.map(|(phase, _)| phase)))
        });
        let threads = rayon::current_num_threads() as u64;
        Region { around, clock: Arc::new(RegionClock { threads, booked: AtomicU64::new(0) }) }
    }

    /// Runs a task of the region, on whichever thread picks it up.
    pub fn task<R>(&self, body: impl FnOnce() -> R) -> R {
        let Some((ledger, phase)) = &self.around else { return body() };
        let scope = Scope {
            ledger: ledger.clone(),
            clock: phase.map(|phase| (phase, Instant::now())),
            region: Some(self.clock.clone()),
        };
        let outer = SCOPE.replace(Some(scope));
        let result = body();
        switch(None);
        SCOPE.set(outer);
        result
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let booked = Duration::from_nanos(self.clock.booked.load(Relaxed));
        SCOPE.with_borrow_mut(|scope| {
            if let Some((_, since)) = scope.as_mut().and_then(|scope| scope.clock.as_mut()) {
                *since += booked;
            }
        });
    }
}

/// Runs `body` as part of `phase`; the clock of the enclosing phase is paused meanwhile.
pub fn phase<R>(phase: Phase, body: impl FnOnce() -> R) -> R {
    let around = switch(Some(phase));
    let result = body();
    switch(around);
    result
}

/// Records the time since the last switch, enters `next`, and returns the previous phase.
fn switch(next: Option<Phase>) -> Option<Phase> {
    SCOPE.with_borrow_mut(|scope| {
        let scope = scope.as_mut()?;
        let now = Instant::now();
        let before = scope.clock.map(|(phase, since)| {
            let spent = now.duration_since(since).as_nanos() as u64;
            let share = spent / scope.region.as_ref().map_or(1, |region| region.threads);
            scope.ledger.sums[phase as usize].nanoseconds.fetch_add(share, Relaxed);
            if let Some(region) = &scope.region {
                region.booked.fetch_add(share, Relaxed);
            }
            phase
        });
        scope.clock = next.map(|phase| (phase, now));
        before
    })
}

/// Adds `flops` operations on `values` f32 values (operands and results) to the current phase
/// of this thread.
pub fn count(flops: usize, values: usize) {
    SCOPE.with_borrow(|scope| {
        let Some(scope) = scope else { return };
        let phase = scope.clock.map_or(Phase::Rest, |(phase, _)| phase);
        let sums = &scope.ledger.sums[phase as usize];
        sums.flops.fetch_add(flops as u64, Relaxed);
        sums.bytes.fetch_add(4 * values as u64, Relaxed);
    });
}

//! The machine's peak multiplication speed, the yardstick for every other speed.

use crate::{Matrix, matmul};
use std::time::Instant;

/// Measures this machine's matrix-product throughput in flop/s: the best that products of
/// large square matrices reach within one second, on the threads that a run would use.
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

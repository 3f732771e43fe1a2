//! Dense products of operands rounded to bf16, with sums in f32.
//!
//! On processors with AVX512_BF16 (Zen 4 and later, Cooper Lake and Sapphire Rapids), one
//! instruction multiplies 32 pairs of bf16, twice as many as in f32. Elsewhere the operands are
//! rounded in the same way and multiplied in f32, so that results differ only by the rounding of
//! the sums.

use crate::product::{gradient_matmul, gradient_matmul_tn};
use crate::{Matrix, View, matmul_nt, profile};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Rows and columns of C whose sums are in registers at once: 24 registers of 16 sums, with two
/// for a row of B and the rest for A.
const ROWS: usize = 12;
const COLS: usize = 32;
/// Terms of the sums between loads and stores of C, in pairs: a panel of B, COLS wide, then takes
/// 36 KiB, and a panel of A 14 KiB.
const PAIRS: usize = 288;
/// Rows of A that are packed at once.
const PACKED: usize = 170 * ROWS;

/// The number type of a product's operands. Sums are in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// Single precision.
    F32,
    /// bfloat16: half the bits, and about twice as fast where the processor multiplies it.
    #[default]
    Bf16,
}

impl FromStr for Arithmetic {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" => Ok(Arithmetic::F32),
            "bf16" => Ok(Arithmetic::Bf16),
            _ => Err(format!("unknown arithmetic {text:?}; choose f32 or bf16")),
        }
    }
}

impl Arithmetic {
    /// `C = A B`: `A: [n, k]`, `B: [k, m]`, `C: [n, m]`.
    pub fn matmul(self, a: View, b: View) -> Matrix {
        match self {
            Arithmetic::F32 => gradient_matmul(a, b),
            Arithmetic::Bf16 if has_bf16() => product(Factor::rows(a), Factor::columns(b)),
            Arithmetic::Bf16 => gradient_matmul(rounded(a).view(), rounded(b).view()),
        }
    }

    /// `C = A Bᵀ`: `A: [n, k]`, `B: [m, k]`, `C: [n, m]`.
    pub fn matmul_nt(self, a: View, b: View) -> Matrix {
        match self {
            Arithmetic::F32 => matmul_nt(a, b),
            Arithmetic::Bf16 if has_bf16() => product(Factor::rows(a), Factor::rows(b)),
            Arithmetic::Bf16 => matmul_nt(rounded(a).view(), rounded(b).view()),
        }
    }

    /// `C = AᵀB`: `A: [k, n]`, `B: [k, m]`, `C: [n, m]`.
    pub fn matmul_tn(self, a: View, b: View) -> Matrix {
        match self {
            Arithmetic::F32 => gradient_matmul_tn(a, b),
            Arithmetic::Bf16 if has_bf16() => product(Factor::columns(a), Factor::columns(b)),
            Arithmetic::Bf16 => gradient_matmul_tn(rounded(a).view(), rounded(b).view()),
        }
    }
}

/// Whether the processor multiplies bf16.
fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The values rounded to bf16.
fn rounded(m: View) -> Matrix {
    let data = m.data.par_iter().map(|v| f32::from_bits(u32::from(bf16_bits(*v)) << 16));
    Matrix::new(m.rows, m.cols, data.collect())
}

/// The nearest bf16, ties to even. NaN stays NaN. It is what `half` computes, without a branch, so
/// that the compiler makes vector instructions of it.
#[inline(always)]
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    if value.is_nan() { 0x7fc0 } else { nearest as u16 }
}

/// A factor of a product, `count` vectors of `depth` terms: the rows of A, or the columns of B.
#[derive(Clone, Copy)]
struct Factor<'a> {
    data: &'a [f32],
    count: usize,
    depth: usize,
    /// Whether the vectors are rows of `data`, rather than its columns.
    rows: bool,
}

impl<'a> Factor<'a> {
    fn rows(m: View<'a>) -> Self {
        Factor { data: m.data, count: m.rows, depth: m.cols, rows: true }
    }

    fn columns(m: View<'a>) -> Self {
        Factor { data: m.data, count: m.cols, depth: m.rows, rows: false }
    }

    /// Packs the pairs of terms `2·first..` of the W vectors from `at` on, so that the same pair
    /// of all vectors lies side by side. What is outside the factor is 0.
    #[inline(always)]
    fn pack<const W: usize>(self, at: usize, first: usize, out: &mut [u32]) {
        let width = W.min(self.count.saturating_sub(at));
        let pairs = out.as_chunks_mut::<W>().0;
        if self.rows {
            for i in 0..W {
                let row = if i < width { self.row(at + i, 2 * first) } else { &[] };
                let (whole, odd) = row.as_chunks::<2>();
                for (k, out) in pairs.iter_mut().enumerate() {
                    out[i] = match (whole.get(k), odd) {
                        (Some([a, b]), _) => pair(*a, *b),
                        (None, [a]) if k == whole.len() => pair(*a, 0.0),
                        _ => 0,
                    };
                }
            }
            return;
        }
        for (k, out) in (first..).zip(pairs) {
            let [a, b] = [2 * k, 2 * k + 1].map(|term| self.column_part(term, at, width));
            if let (Ok(a), Ok(b)) = (<&[f32; W]>::try_from(a), <&[f32; W]>::try_from(b)) {
                for i in 0..W {
                    out[i] = pair(a[i], b[i]);
                }
                continue;
            }
            for (i, out) in out.iter_mut().enumerate() {
                let term = |part: &[f32]| part.get(i).copied().unwrap_or(0.0);
                *out = pair(term(a), term(b));
            }
        }
    }

    /// A term of `width` vectors from `at` on; nothing if there is no such term.
    #[inline(always)]
    fn column_part(self, term: usize, at: usize, width: usize) -> &'a [f32] {
        if term < self.depth { &self.data[term * self.count + at..][..width] } else { &[] }
    }

    fn row(self, index: usize, from: usize) -> &'a [f32] {
        &self.data[index * self.depth..][..self.depth][from.min(self.depth)..]
    }
}

/// Two numbers as bf16, the first one in the lower half.
#[inline(always)]
fn pair(a: f32, b: f32) -> u32 {
    u32::from(bf16_bits(a)) | (u32::from(bf16_bits(b)) << 16)
}

/// `C = A B`, given the rows of A and the columns of B. The order of each sum depends on nothing
/// but its length.
#[cfg(target_arch = "x86_64")]
fn product(a: Factor, b: Factor) -> Matrix {
    let (n, m, depth) = (a.count, b.count, a.depth);
    let mut c = Matrix::zeros(n, m);
    if c.data.is_empty() || depth == 0 {
        return c;
    }
    assert_eq!(depth, b.depth, "the factors must have the same number of terms");
    profile::count(2 * n * depth * m, n * depth + depth * m + n * m);
    let panel = depth.div_ceil(2) * ROWS;
    let mut packed = vec![0; n.min(PACKED).div_ceil(ROWS) * panel];
    let width = m.div_ceil(6).next_multiple_of(COLS).clamp(2 * COLS, 8 * COLS);
    let blocks: Vec<usize> = (0..m).step_by(width).collect();
    for first in (0..n).step_by(PACKED) {
        let rows = PACKED.min(n - first);
        let target = avx512::Target::new(&mut c, first, rows);
        packed.par_chunks_mut(panel).enumerate().for_each(|(i, panel)| {
            // SAFETY: products in bf16 are computed only where `has_bf16` says so.
            unsafe { avx512::pack_rows(a, (first + i * ROWS).min(n), panel) };
        });
        blocks.par_iter().for_each_init(Vec::new, |space, &at| {
            let cols = at..(at + width).min(m);
            // SAFETY: as above, and each task has columns of its own.
            unsafe { avx512::columns_of_product(&packed, b, cols, &target, space) };
        });
    }
    c
}

#[cfg(not(target_arch = "x86_64"))]
fn product(_: Factor, _: Factor) -> Matrix {
    unreachable!("`has_bf16` is false on this processor")
}

/// The parts that are compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{COLS, Factor, PAIRS, ROWS};
    use crate::Matrix;
    use std::arch::x86_64::{
        __m512bh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use std::{marker::PhantomData, ops::Range};

    /// Rows of C, of which several threads compute disjoint columns.
    pub struct Target<'a> {
        first: *mut f32,
        rows: usize,
        stride: usize,
        matrix: PhantomData<&'a mut Matrix>,
    }

    // SAFETY: `columns_of_product` says that no two threads may compute the same columns.
    unsafe impl Sync for Target<'_> {}

    impl<'a> Target<'a> {
        pub fn new(c: &'a mut Matrix, first: usize, rows: usize) -> Self {
            let stride = c.cols;
            let part = &mut c.data[first * stride..][..rows * stride];
            Target { first: part.as_mut_ptr(), rows, stride, matrix: PhantomData }
        }
    }

    /// Packs a panel of ROWS rows of A.
    ///
    /// # Safety
    /// The processor must have AVX512_BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn pack_rows(a: Factor, at: usize, panel: &mut [u32]) {
        a.pack::<ROWS>(at, 0, panel);
    }

    /// Computes the columns `cols` of C, where `a` is packed in panels of rows. `space` is room
    /// for a part of B.
    ///
    /// # Safety
    /// The processor must have AVX512_BF16, `cols` must lie in C, and no other thread may compute
    /// these columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn columns_of_product(
        a: &[u32],
        b: Factor,
        cols: Range<usize>,
        c: &Target,
        space: &mut Vec<u32>,
    ) {
        let all = b.depth.div_ceil(2);
        for first in (0..all).step_by(PAIRS) {
            let pairs = PAIRS.min(all - first);
            space.resize(cols.len().div_ceil(COLS) * pairs * COLS, 0);
            let panels = cols.clone().step_by(COLS).zip(space.chunks_exact_mut(pairs * COLS));
            panels.for_each(|(at, panel)| b.pack::<COLS>(at, first, panel));
            for (row, a) in (0..c.rows).step_by(ROWS).zip(a.chunks_exact(all * ROWS)) {
                let a = &a[first * ROWS..][..pairs * ROWS];
                for (col, b) in cols.clone().step_by(COLS).zip(space.chunks_exact(pairs * COLS)) {
                    let size = (ROWS.min(c.rows - row), COLS.min(cols.end - col));
                    // SAFETY: row and column lie in C, and so does a tile of this size from there.
                    unsafe {
                        tile(a, b, c.first.add(row * c.stride + col), (c.stride, size), first == 0)
                    };
                }
            }
        }
    }

    /// Adds the product of packed panels to a tile of C, at most ROWS × COLS, or sets it if it is
    /// the `first`.
    ///
    /// # Safety
    /// The processor must have AVX512_BF16; `c` must point to so many rows and columns, `stride`
    /// apart, that no other thread uses.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile(
        a: &[u32],
        b: &[u32],
        c: *mut f32,
        (stride, (rows, cols)): (usize, (usize, usize)),
        first: bool,
    ) {
        if (rows, cols) == (ROWS, COLS) {
            // SAFETY: the caller's.
            return unsafe { kernel(a, b, c, stride, first) };
        }
        let mut whole = [0.0; ROWS * COLS];
        for (i, whole) in whole.chunks_exact_mut(COLS).enumerate().take(rows) {
            // SAFETY: the caller says that these rows and columns are there.
            let c = unsafe { std::slice::from_raw_parts(c.add(i * stride), cols) };
            whole[..cols].copy_from_slice(c);
        }
        // SAFETY: the array has ROWS rows of COLS columns.
        unsafe { kernel(a, b, whole.as_mut_ptr(), COLS, first) };
        for (i, whole) in whole.chunks_exact(COLS).enumerate().take(rows) {
            // SAFETY: the caller says that these rows and columns are there, for this thread alone.
            let c = unsafe { std::slice::from_raw_parts_mut(c.add(i * stride), cols) };
            c.copy_from_slice(&whole[..cols]);
        }
    }

    /// `C [+]= A B` for ROWS rows of `a` and COLS columns of `b`, packed by pairs of terms.
    ///
    /// # Safety
    /// The processor must have AVX512_BF16; `c` must point to ROWS rows of COLS columns, `stride`
    /// apart, that no other thread uses.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn kernel(a: &[u32], b: &[u32], c: *mut f32, stride: usize, first: bool) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let at = |i: usize, j: usize| i * stride + 16 * j;
        if !first {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller says that `c` is large enough.
                    *sum = unsafe { _mm512_loadu_ps(c.add(at(i, j))) };
                }
            }
        }
        for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLS>().0) {
            // SAFETY: `b` holds 32 values here, and all 512-bit vectors are alike in memory.
            let b: [__m512bh; 2] = unsafe {
                [0, 16].map(|j| std::mem::transmute(_mm512_loadu_si512(b.as_ptr().add(j).cast())))
            };
            for (a, sums) in a.iter().zip(&mut sums) {
                // SAFETY: all 512-bit vectors are alike in memory.
                let a: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(*a as i32)) };
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                // SAFETY: the caller says that `c` is large enough.
                unsafe { _mm512_storeu_ps(c.add(at(i, j)), *sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::{arbitrary, same_on_any_threads};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn products_are_those_of_the_rounded_factors(
            n in 1usize..90, k in 1usize..900, m in 1usize..90, seed: u32,
        ) {
            let (a, b) = (arbitrary(n, k, seed), arbitrary(k, m, seed ^ 1));
            let want = gradient_matmul(rounded(a.view()).view(), rounded(b.view()).view());
            let bf16 = Arithmetic::Bf16;
            let (at, bt) = (a.transposed(), b.transposed());
            for got in [
                bf16.matmul(a.view(), b.view()),
                bf16.matmul_nt(a.view(), bt.view()),
                bf16.matmul_tn(at.view(), b.view()),
            ] {
                prop_assert_eq!((got.rows, got.cols), (n, m));
                for (got, want) in got.data.iter().zip(&want.data) {
                    prop_assert!((got - want).abs() <= 2e-6 * k as f32, "{} {}", got, want);
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let mut rng = rand_mt::Mt::new(9);
        let special = [0.0, -0.0, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, 1.003_906_2, 1.0];
        let random = (0..10_000).map(|_| f32::from_bits(rng.next_u32()));
        for value in random.chain(special) {
            let want = half::bf16::from_f32(value);
            let got = half::bf16::from_bits(bf16_bits(value));
            assert!(got == want || (got.is_nan() && want.is_nan()), "{value}: {got} {want}");
        }
        let nan = Matrix::new(1, 2, vec![1.0, f32::NAN]);
        assert!(Arithmetic::Bf16.matmul_nt(nan.view(), nan.view()).data[0].is_nan());
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        same_on_any_threads(1257, |a, b| Arithmetic::Bf16.matmul(a, b));
    }
}

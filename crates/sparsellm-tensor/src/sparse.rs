//! Products with pruned weights, which multiply only the weights that remain. From half zeros
//! on, this beats the dense product in proportion to the fraction removed
//! (docs/performance.md).

use crate::{Matrix, View, profile};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Tokens multiplied at once, side by side, so that each weight is loaded once for all of
/// them.
const TOKENS: usize = 64;
/// Input features per block: with TOKENS values each, they take 32 KiB and stay in the L1
/// cache. At most 256, because a weight's position in its block is stored in one byte.
const FEATURES: usize = 128;
/// Weight rows per block: their outputs, TOKENS values each, stay in the L2 cache.
const ROWS: usize = 256;

/// One feature's values for TOKENS tokens. Aligned, since otherwise every load of a full
/// vector register would touch two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Lanes([f32; TOKENS]);

/// The non-zero weights of `W: [d_out, d_in]`, in the order in which the product uses them.
#[derive(Clone, Debug)]
pub struct SparseWeights {
    d_out: usize,
    d_in: usize,
    blocks: Vec<RowBlock>,
}

/// The non-zero weights of ROWS rows, ordered by block of features, then by row.
#[derive(Clone, Debug)]
struct RowBlock {
    weights: Vec<f32>,
    /// The feature of each weight, as an index into its block.
    features: Vec<u8>,
    /// Where each row of each block ends in `features`.
    ends: Vec<usize>,
}

impl SparseWeights {
    /// Bytes needed to pack `weights` weights of which a fraction `kept` is non-zero.
    pub fn bytes(weights: usize, kept: f64) -> usize {
        let each = size_of::<f32>() + size_of::<u8>();
        if kept <= 0.5 { (kept * (weights * each) as f64) as usize } else { 0 }
    }

    /// Packs a matrix; `None` if fewer than half of its weights are zero.
    pub fn of(w: &Matrix) -> Option<SparseWeights> {
        let rows: Vec<View> =
            (0..w.rows).step_by(ROWS).map(|i| w.rows(i..(i + ROWS).min(w.rows))).collect();
        let kept = |w: &View| w.data.iter().filter(|v| **v != 0.0).count();
        let kept: Vec<usize> = rows.par_iter().map(kept).collect();
        if 2 * kept.iter().sum::<usize>() > w.data.len() {
            return None;
        }
        let blocks = rows.into_par_iter().zip(kept).map(|(rows, kept)| RowBlock::of(rows, kept));
        Some(SparseWeights { d_out: w.rows, d_in: w.cols, blocks: blocks.collect() })
    }

    /// Computes `C[:, at..at + d_out] = [C +] α X Wᵀ` on this thread, for the rows of a tile
    /// `X: [n, d_in]`.
    pub fn tile_matmul_nt(&self, c: &mut [f32], at: usize, add: bool, alpha: f32, x: View) {
        debug_assert_eq!(x.cols, self.d_in);
        let (n, cols) = (x.rows, c.len() / x.rows.max(1));
        let kept: usize = self.blocks.iter().map(|block| block.weights.len()).sum();
        profile::count(2 * n * kept, n * (self.d_in + self.d_out) + kept);
        let (groups, blocks) = (n.div_ceil(TOKENS), self.d_in.div_ceil(FEATURES));
        let mut inputs = vec![Lanes([0.0; TOKENS]); groups * blocks * FEATURES];
        for (t, row) in x.data.chunks_exact(self.d_in.max(1)).enumerate() {
            let group = &mut inputs[t / TOKENS * blocks * FEATURES..];
            group.iter_mut().zip(row).for_each(|(feature, v)| feature.0[t % TOKENS] = *v);
        }
        let mut outputs = vec![Lanes([0.0; TOKENS]); groups * ROWS];
        for (first, weights) in (0..self.d_out).step_by(ROWS).zip(&self.blocks) {
            let rows = ROWS.min(self.d_out - first);
            outputs.fill(Lanes([0.0; TOKENS]));
            let mut entry = 0;
            for (block, ends) in weights.ends.chunks_exact(rows).enumerate() {
                let end = ends.last().copied().unwrap_or(entry);
                for group in 0..groups {
                    pulp::Arch::new().dispatch(Block {
                        weights: &weights.weights[entry..end],
                        features: &weights.features[entry..end],
                        first: entry,
                        ends,
                        inputs: &inputs[(group * blocks + block) * FEATURES..][..FEATURES],
                        outputs: &mut outputs[group * ROWS..][..rows],
                    });
                }
                entry = end;
            }
            for (t, c) in c.chunks_exact_mut(cols).enumerate() {
                let outputs = &outputs[t / TOKENS * ROWS..][..rows];
                for (c, output) in c[at + first..].iter_mut().zip(outputs) {
                    *c = alpha * output.0[t % TOKENS] + if add { *c } else { 0.0 };
                }
            }
        }
    }
}

impl RowBlock {
    fn of(rows: View, kept: usize) -> RowBlock {
        let (mut weights, mut features) = (Vec::with_capacity(kept), Vec::with_capacity(kept));
        let mut ends = Vec::new();
        for start in (0..rows.cols).step_by(FEATURES) {
            for row in rows.data.chunks_exact(rows.cols) {
                let block = (0u8..).zip(&row[start..(start + FEATURES).min(rows.cols)]);
                for (feature, &weight) in block.filter(|(_, w)| **w != 0.0) {
                    weights.push(weight);
                    features.push(feature);
                }
                ends.push(weights.len());
            }
        }
        RowBlock { weights, features, ends }
    }
}

/// The product of one block of weights and one group of tokens.
struct Block<'a> {
    weights: &'a [f32],
    features: &'a [u8],
    /// Where the block begins among the weights of its rows, and where each row ends.
    first: usize,
    ends: &'a [usize],
    inputs: &'a [Lanes],
    outputs: &'a mut [Lanes],
}

impl Block<'_> {
    /// Computes the block with N registers for the tokens of a row.
    #[inline(always)]
    fn product<S: Simd, const N: usize>(self, simd: S) {
        let mut start = 0;
        for (output, end) in self.outputs.iter_mut().zip(self.ends) {
            let end = end - self.first;
            let (weights, features) = (&self.weights[start..end], &self.features[start..end]);
            start = end;
            let Ok(output) = <&mut [S::f32s; N]>::try_from(S::as_mut_simd_f32s(&mut output.0).0)
            else {
                return;
            };
            // Two alternating sums, since a single one would stall on its own latency.
            let mut sums = *output;
            let mut others = [simd.splat_f32s(0.0); N];
            let ((pairs, odd), (at, odd_at)) =
                (weights.as_chunks::<2>(), features.as_chunks::<2>());
            for ([w, v], [i, j]) in pairs.iter().zip(at) {
                let (w, v) = (simd.splat_f32s(*w), simd.splat_f32s(*v));
                let x = S::as_simd_f32s(&self.inputs[usize::from(*i)].0).0;
                let y = S::as_simd_f32s(&self.inputs[usize::from(*j)].0).0;
                for n in 0..N {
                    sums[n] = simd.mul_add_e_f32s(w, x[n], sums[n]);
                    others[n] = simd.mul_add_e_f32s(v, y[n], others[n]);
                }
            }
            for (w, i) in odd.iter().zip(odd_at) {
                let w = simd.splat_f32s(*w);
                let x = S::as_simd_f32s(&self.inputs[usize::from(*i)].0).0;
                for n in 0..N {
                    sums[n] = simd.mul_add_e_f32s(w, x[n], sums[n]);
                }
            }
            for n in 0..N {
                output[n] = simd.add_f32s(sums[n], others[n]);
            }
        }
    }
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match TOKENS / S::F32_LANES {
            4 => self.product::<S, 4>(simd),
            8 => self.product::<S, 8>(simd),
            16 => self.product::<S, 16>(simd),
            _ => self.product::<S, TOKENS>(simd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul_nt;

    #[test]
    fn the_product_is_that_of_the_dense_weights() {
        let mut rng = rand_mt::Mt::new(3);
        for (n, d_in, d_out) in [(1, 1, 1), (64, 128, 256), (150, 300, 600), (7, 129, 257)] {
            let mut random = |len: usize, kept: u32| -> Vec<f32> {
                let value = |rng: &mut rand_mt::Mt| rng.next_u32() as f32 / 2f32.powi(31) - 1.0;
                let mut each = || if rng.next_u32() % 10 < kept { value(&mut rng) } else { 0.0 };
                (0..len).map(|_| each()).collect()
            };
            let x = Matrix::new(n, d_in, random(n * d_in, 10));
            let w = Matrix::new(d_out, d_in, random(d_out * d_in, 3));
            let Some(sparse) = SparseWeights::of(&w) else { continue };
            let want = matmul_nt(x.view(), w.view());
            // The columns around the output must stay; its own are replaced, then subtracted
            // from.
            let mut c = vec![7.0; n * (d_out + 3)];
            sparse.tile_matmul_nt(&mut c, 2, false, 1.0, x.view());
            sparse.tile_matmul_nt(&mut c, 2, true, -3.0, x.view());
            for (row, want) in c.chunks_exact(d_out + 3).zip(want.data.chunks_exact(d_out)) {
                assert_eq!([row[0], row[1], row[d_out + 2]], [7.0; 3]);
                for (got, want) in row[2..].iter().zip(want) {
                    assert!((got + 2.0 * want).abs() < 1e-4 * (1.0 + want.abs()), "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn dense_weights_are_left_to_the_dense_product() {
        let mut w = Matrix::new(2, 4, vec![1.0; 8]);
        w.data[..3].fill(0.0);
        assert!(SparseWeights::of(&w).is_none());
        w.data[3] = 0.0;
        assert!(SparseWeights::of(&w).is_some());
    }
}

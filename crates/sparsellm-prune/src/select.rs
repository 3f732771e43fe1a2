//! Finds the lowest of many scores without sorting them.

use crate::count;
use rayon::prelude::*;
use sparsellm_ranks::Communicator;

/// With fewer scores than this, spreading the work over threads does not pay.
const FEW: usize = 1 << 15;
/// The number of scores that one task looks at.
const PIECE: usize = 1 << 16;

/// The indices of the `k` smallest scores. Of equal scores (and of equal NaN), those with the
/// lower index come first.
pub fn smallest(scores: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    if k == 0 {
        return Vec::new();
    }
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, |&a, &b| {
            scores[a as usize].total_cmp(&scores[b as usize]).then(a.cmp(&b))
        });
        order.truncate(k);
    }
    order
}

/// Calls `found` with the indices of the `k` smallest of a group's few scores, the same that
/// [`smallest`] returns: those that fewer than `k` others precede.
#[inline(always)]
pub fn each_smallest(scores: &[f32], k: usize, mut found: impl FnMut(usize)) {
    if scores.len() > 64 {
        return smallest(scores, k).into_iter().for_each(|i| found(i as usize));
    }
    for (i, score) in scores.iter().enumerate() {
        let before = |(j, other): (usize, &f32)| {
            let order = other.total_cmp(score);
            order.is_lt() || (order.is_eq() && j < i)
        };
        if scores.iter().enumerate().filter(|other| before(*other)).count() < k {
            found(i);
        }
    }
}

/// Sets `marks` at the lowest ⌊ρ·n⌋ of the n scores that all ranks hold together, and clears it
/// elsewhere. The result is that of [`smallest`] on the ranks' scores one after another, but it
/// is found by counting, on all threads.
pub fn mark_smallest(scores: &[f32], rho: f64, marks: &mut [bool], ranks: &dyn Communicator) {
    if ranks.size() == 1 && scores.len() < FEW {
        marks.fill(false);
        let lowest = smallest(scores, count(rho, scores.len()));
        return lowest.into_iter().for_each(|i| marks[i as usize] = true);
    }
    // Finds the key of the k-th smallest score, some of its bits at a time.
    let (mut threshold, mut left, mut low) = (0u32, None, 32);
    for bits in [11, 11, 10] {
        let above = low;
        low -= bits;
        let place = |key: u32| {
            let same = above == 32 || key >> above == threshold >> above;
            same.then_some((key >> low) as usize & ((1 << bits) - 1))
        };
        let mut counts = histogram(scores, bits, place);
        ranks.sum(&mut counts);
        let k = left.unwrap_or_else(|| count(rho, counts.iter().sum::<f64>() as usize));
        if k == 0 {
            return marks.fill(false);
        }
        let (bucket, rest) = bucket(&counts, k);
        (threshold, left) = (threshold | bucket << low, Some(rest));
    }
    // Counts the equal keys that precede each piece, those of the ranks before this one first.
    let ties = left.unwrap_or(0);
    let equal = |piece: &[f32]| piece.iter().filter(|s| key(**s) == threshold).count();
    let mut before: Vec<usize> = scores.par_chunks(PIECE).map(equal).collect();
    let each = ranks.gather_numbers(before.iter().sum::<usize>() as f64);
    let mut sum = each[..ranks.rank()].iter().sum::<f64>() as usize;
    before.iter_mut().for_each(|n| sum += std::mem::replace(n, sum));
    let pieces = marks.par_chunks_mut(PIECE).zip(scores.par_chunks(PIECE)).zip(before);
    pieces.for_each(|((marks, scores), mut before)| {
        for (mark, score) in marks.iter_mut().zip(scores) {
            let key = key(*score);
            *mark = key < threshold || (key == threshold && before < ties);
            before += usize::from(key == threshold);
        }
    });
}

/// An integer key that sorts scores in the order of [`f32::total_cmp`].
fn key(score: f32) -> u32 {
    let bits = score.to_bits();
    bits ^ if bits >> 31 == 0 { 1 << 31 } else { u32::MAX }
}

/// Counts the scores that fall into each of 2ᵇⁱᵗˢ buckets.
fn histogram(scores: &[f32], bits: u32, bucket: impl Fn(u32) -> Option<usize> + Sync) -> Vec<f64> {
    let empty = || vec![0usize; 1 << bits];
    let count = |mut counts: Vec<usize>, piece: &[f32]| {
        for bucket in piece.iter().filter_map(|s| bucket(key(*s))) {
            counts[bucket] += 1;
        }
        counts
    };
    let add = |mut a: Vec<usize>, b: Vec<usize>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let counts = scores.par_chunks(PIECE).fold(empty, count).reduce(empty, add);
    counts.into_iter().map(|n| n as f64).collect()
}

/// The bucket that holds the k-th score (counted from 1), and that score's place within the
/// bucket (also from 1).
fn bucket(counts: &[f64], k: usize) -> (u32, usize) {
    let mut left = k;
    for (bucket, &count) in (0..).zip(counts) {
        if left <= count as usize {
            return (bucket, left);
        }
        left -= count as usize;
    }
    (counts.len() as u32 - 1, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsellm_ranks::Local;

    #[test]
    fn the_smallest_are_found_whatever_the_ties() {
        let scores = [3.0, 1.0, 1.0, f32::NAN, 0.5, 1.0];
        let mut got = smallest(&scores, 3);
        got.sort_unstable();
        assert_eq!(got, [1, 2, 4]);
        assert_eq!(smallest(&scores, 6).len(), 6);
    }

    #[test]
    fn a_group_of_any_size_finds_them_too() {
        let mut rng = rand_mt::Mt::new(8);
        for of in [1, 2, 4, 8, 64, 65, 100] {
            let scores: Vec<f32> = (0..of).map(|_| (rng.next_u32() % 9) as f32).collect();
            for k in 0..=of {
                let (mut got, mut want) = (Vec::new(), smallest(&scores, k));
                each_smallest(&scores, k, |i| got.push(i as u32));
                got.sort_unstable();
                want.sort_unstable();
                assert_eq!(got, want, "{k} of {of}");
            }
        }
    }

    #[test]
    fn counting_finds_what_selecting_finds() {
        let mut rng = rand_mt::Mt::new(4);
        let mut scores: Vec<f32> =
            (0..150_001).map(|_| (rng.next_u32() % 5000) as f32 / 700.0).collect();
        for i in (0..scores.len()).step_by(977) {
            scores[i] = [f32::NAN, f32::INFINITY, -0.0, -1.5, f32::MIN_POSITIVE][i % 5];
        }
        let n = scores.len();
        for k in [0, 1, 2, 1000, n / 2, n * 7 / 10, n - 1, n] {
            let mut want = vec![false; n];
            smallest(&scores, k).into_iter().for_each(|i| want[i as usize] = true);
            let mut got = vec![true; n];
            mark_smallest(&scores, k as f64 / n as f64, &mut got, &Local);
            assert!(got == want, "{k}");
        }
    }
}

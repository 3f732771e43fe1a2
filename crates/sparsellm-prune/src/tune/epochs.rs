//! Which segments tuning trains on, and in which order.

use rand_mt::Mt;
use std::ops::Range;

/// One of so many segments is held out.
pub const HELD_OUT: usize = 8;

/// How many segments are held out beside, or of, so many.
pub fn held_out(segments: usize) -> usize {
    segments.div_ceil(HELD_OUT)
}

/// The segments of a run: those trained on, and those held out to choose the epoch that is kept.
#[derive(Clone, Debug)]
pub struct Split {
    pub training: usize,
    pub held_out: Range<usize>,
}

impl Split {
    /// Splits so many segments, at least two; the last eighth is held out.
    pub fn of(segments: usize) -> Split {
        let training = segments - held_out(segments).min(segments - 1);
        Split { training, held_out: training..segments }
    }
}

/// The orders of the training segments, epoch by epoch.
pub struct Orders(Mt);

impl Orders {
    pub fn new() -> Orders {
        Orders(Mt::new(0))
    }

    /// The order of the next epoch, of so many segments (Fisher and Yates's shuffle).
    pub fn next(&mut self, segments: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..segments).collect();
        for i in (1..segments).rev() {
            order.swap(i, (self.0.next_u32() as usize) % (i + 1));
        }
        order
    }
}

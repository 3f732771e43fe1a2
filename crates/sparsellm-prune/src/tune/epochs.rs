//! The order in which tuning sees its segments.

use rand_mt::Mt;
use std::ops::Range;

/// One of so many segments is held out.
const HELD_OUT: usize = 8;

/// The segments of a run: those trained on, and those held out to choose the epoch that is kept.
#[derive(Clone, Debug)]
pub struct Split {
    pub training: usize,
    pub held_out: Range<usize>,
}

impl Split {
    /// Splits so many segments, at least two; the last eighth is held out.
    pub fn of(segments: usize) -> Split {
        let training = segments - segments.div_ceil(HELD_OUT).min(segments - 1);
        Split { training, held_out: training..segments }
    }
}

/// The orders of the training segments, epoch by epoch: each is a shuffle of the one before.
pub struct Orders {
    order: Vec<usize>,
    rng: Mt,
}

impl Orders {
    pub fn new(split: &Split) -> Orders {
        Orders { order: (0..split.training).collect(), rng: Mt::new(0) }
    }

    /// The order of the next epoch (Fisher and Yates's shuffle).
    pub fn next(&mut self) -> &[usize] {
        for i in (1..self.order.len()).rev() {
            self.order.swap(i, (self.rng.next_u32() as usize) % (i + 1));
        }
        &self.order
    }
}

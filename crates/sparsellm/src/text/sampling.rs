//! Calibration segments, drawn as the authors' Python draws them.

use crate::error::{Result, invalid, usage};
use rand_mt::Mt;

/// CPython's `random.Random(seed)`, as far as `randint` goes.
pub struct PythonRandom(Mt);

impl PythonRandom {
    /// `random.seed(seed)`: the seed's 32-bit digits key the Mersenne Twister.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key = if high == 0 { vec![low] } else { vec![low, high] };
        PythonRandom(Mt::new_with_key(key))
    }

    /// `random.randint(0, max)`: as many high bits as `max + 1` has, drawn again
    /// while the result is above `max`.
    pub fn randint(&mut self, max: u32) -> u32 {
        let width = u64::from(max) + 1;
        let bits = u64::BITS - width.leading_zeros();
        loop {
            // getrandbits(k) takes the top bits; k = 33 needs a second word,
            // which is its high part.
            let value = if bits <= 32 {
                u64::from(self.0.next_u32() >> (32 - bits))
            } else {
                let low = u64::from(self.0.next_u32());
                low | u64::from(self.0.next_u32() >> (64 - bits)) << 32
            };
            if value < width {
                return value as u32;
            }
        }
    }
}

/// Token segments of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// The segments one after another.
    pub tokens: Vec<u32>,
    /// Tokens per segment.
    pub seq_len: usize,
}

impl Segments {
    /// Draws `samples` segments of `seq_len` tokens at
    /// `i = randint(0, len − seq_len − 1)`.
    ///
    /// # Errors
    /// Where the text is not longer than one segment.
    pub fn draw(text: &[u32], samples: usize, seq_len: usize, seed: u64) -> Result<Segments> {
        let Some(last) = text.len().checked_sub(seq_len.saturating_add(1)) else {
            return invalid!(
                "the calibration text has {} tokens, too few for one segment of {seq_len}; give a longer text or a smaller --seq-len",
                text.len()
            );
        };
        let Ok(last) = u32::try_from(last) else {
            return invalid!("the calibration text has more than 2^32 tokens");
        };
        let Some(total) = samples.checked_mul(seq_len).filter(|n| *n <= 1 << 31) else {
            return usage!(
                "--samples {samples} of {seq_len} tokens are too many; 2^31 tokens is the limit"
            );
        };
        let mut random = PythonRandom::new(seed);
        let mut tokens = Vec::with_capacity(total);
        for _ in 0..samples {
            let i = random.randint(last) as usize;
            tokens.extend_from_slice(&text[i..i + seq_len]);
        }
        Ok(Segments { tokens, seq_len })
    }

    /// The first `samples` segments in order, with no draw (token files).
    ///
    /// # Errors
    /// Where there are fewer tokens than that.
    pub fn first(text: &[u32], samples: usize, seq_len: usize) -> Result<Segments> {
        match samples.checked_mul(seq_len).and_then(|n| text.get(..n)) {
            Some(tokens) => Ok(Segments { tokens: tokens.to_vec(), seq_len }),
            None => invalid!(
                "the calibration file has {} tokens, fewer than {samples} segments of {seq_len}; lower --samples or --seq-len",
                text.len()
            ),
        }
    }

    /// Cuts a text into consecutive windows, at most `max` of them; what is
    /// left over is dropped.
    ///
    /// # Errors
    /// Where the text is shorter than one window.
    pub fn windows(text: &[u32], seq_len: usize, max: Option<usize>) -> Result<Segments> {
        let windows = (text.len() / seq_len).min(max.unwrap_or(usize::MAX));
        if windows == 0 {
            return invalid!(
                "the text has {} tokens, fewer than one window of {seq_len}; give a longer text or a smaller --seq-len",
                text.len()
            );
        }
        Ok(Segments { tokens: text[..windows * seq_len].to_vec(), seq_len })
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.seq_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `random.seed(s); [random.randint(0, m) for _ in range(5)]` in CPython
    /// 3.11, for three seeds and text lengths.
    #[test]
    fn draws_are_cpythons() {
        for (seed, max, want) in CPYTHON {
            let mut random = PythonRandom::new(seed);
            assert_eq!([(); 5].map(|()| random.randint(max)), want, "seed {seed} max {max}");
        }
    }

    #[rustfmt::skip]
    const CPYTHON: [(u64, u32, [u32; 5]); 16] = [
        (0, 999, [864, 394, 776, 911, 430]),
        (0, 290000, [201979, 220500, 21225, 135746, 268055]),
        (0, 2147483648, [1654615998, 1806341205, 173879092, 1112038970, 2087043557]),
        (0, 4294967295, [3626764237, 1806341205, 2195908194, 2046968324, 3900315155]),
        (1, 999, [137, 582, 867, 821, 782]),
        (1, 290000, [70445, 33086, 133729, 61823, 259750]),
        (1, 2147483648, [577090037, 271041745, 1095513148, 506456969, 2127877499]),
        (1, 4294967295, [3280387012, 1095513148, 1930549411, 2798570523, 3387541014]),
        (42, 999, [654, 114, 25, 759, 281]),
        (42, 290000, [58369, 13112, 144194, 128393, 117026]),
        (42, 2147483648, [478163327, 107420369, 1181241943, 1051802512, 958682846]),
        (42, 4294967295, [2746317213, 1181241943, 958682846, 3163119785, 1812140441]),
        (1099511627783, 999, [628, 765, 834, 960, 967]),
        (1099511627783, 290000, [249521, 131514, 66453, 270959, 196749]),
        (1099511627783, 2147483648, [2044078442, 1077368710, 544390359, 1611772094, 1559734921]),
        (1099511627783, 4294967295, [2044078442, 3091373771, 1688693473, 3852568308, 3840894423]),
    ];

    #[test]
    fn short_texts_are_refused() {
        let text: Vec<u32> = (0..10).collect();
        assert!(Segments::draw(&text, 1, 10, 0).is_err());
        assert_eq!(Segments::draw(&text, 2, 9, 0).unwrap().tokens.len(), 18);
        assert!(Segments::first(&text, 2, 6).is_err());
        assert!(Segments::windows(&text, 11, None).is_err());
        assert_eq!(Segments::windows(&text, 3, None).unwrap().count(), 3);
        assert_eq!(Segments::windows(&text, 3, Some(2)).unwrap().count(), 2);
    }
}

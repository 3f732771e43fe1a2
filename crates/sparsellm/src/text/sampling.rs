//! Calibration segments, drawn as the authors' Python draws them.

use crate::checkpoint::hex;
use crate::error::{Error, Result, invalid, usage};
use crate::ranks::Communicator;
use rand_mt::Mt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segments {
    /// The segments one after another.
    pub tokens: Vec<u32>,
    /// Tokens per segment.
    pub seq_len: usize,
}

impl Segments {
    /// The tokens of this rank's part of the segments; `together` of them are not
    /// parted.
    pub fn share(&self, ranks: &dyn Communicator, together: usize) -> &[u32] {
        let size = together.max(1) * self.seq_len;
        let pieces = ranks.share(self.tokens.len().div_ceil(size));
        &self.tokens[pieces.start * size..(pieces.end * size).min(self.tokens.len())]
    }

    /// How many tokens the largest part has.
    pub fn largest_share(&self, ranks: &dyn Communicator, together: usize) -> usize {
        let size = together.max(1) * self.seq_len;
        let pieces = ranks.largest_share(self.tokens.len().div_ceil(size));
        (pieces * size).min(self.tokens.len())
    }

    /// SHA-256 of the tokens, as hex.
    pub fn digest(&self) -> String {
        let mut sha = Sha256::new();
        self.tokens.iter().for_each(|token| sha.update(token.to_le_bytes()));
        hex(&sha.finalize())
    }

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
        let mut random = PythonRandom::new(seed);
        let mut tokens = Vec::with_capacity(total_tokens(samples, seq_len)?);
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

/// Tokens of `samples` segments, within reason.
fn total_tokens(samples: usize, seq_len: usize) -> Result<usize> {
    match samples.checked_mul(seq_len) {
        Some(total) if total <= 1 << 31 => Ok(total),
        _ => {
            usage!("--samples {samples} of {seq_len} tokens are too many; 2^31 tokens is the limit")
        }
    }
}

/// Documents to draw segments from, as from C4. Their text lies in a temporary
/// file: a shard of C4 holds 800 MB, of which a few hundred documents are read.
pub struct Documents {
    file: BufWriter<File>,
    /// Where each ends in the file.
    ends: Vec<u64>,
}

impl Documents {
    /// None yet.
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(temporary)?;
        Ok(Documents { file: BufWriter::new(file), ends: Vec::new() })
    }

    /// Adds one.
    pub fn push(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(temporary)?;
        self.ends.push(self.ends.last().unwrap_or(&0) + text.len() as u64);
        Ok(())
    }

    /// Draws segments as the authors do from C4: a document, drawn again until
    /// it is longer than `seq_len` tokens, then the segment's start in it.
    ///
    /// # Errors
    /// Where no document is long enough.
    pub fn draw(
        self,
        encode: impl Fn(&str) -> Result<Vec<u32>>,
        samples: usize,
        seq_len: usize,
        seed: u64,
    ) -> Result<Segments> {
        let total = total_tokens(samples, seq_len)?;
        let mut file = self.file.into_inner().map_err(|e| temporary(e.into_error()))?;
        let mut random = PythonRandom::new(seed);
        let (mut tokens, mut too_short) = (Vec::with_capacity(total), BTreeSet::new());
        while tokens.len() < total {
            if too_short.len() == self.ends.len() {
                return invalid!(
                    "none of the {} documents is longer than {seq_len} tokens; give longer ones or a smaller --seq-len",
                    self.ends.len()
                );
            }
            let i = random.randint((self.ends.len() - 1) as u32) as usize;
            if too_short.contains(&i) {
                continue;
            }
            let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
            let mut text = String::new();
            file.seek(SeekFrom::Start(start))
                .and_then(|_| (&mut file).take(self.ends[i] - start).read_to_string(&mut text))
                .map_err(temporary)?;
            let ids = encode(&text)?;
            if ids.len() <= seq_len {
                too_short.insert(i);
                continue;
            }
            let at = random.randint((ids.len() - seq_len - 1) as u32) as usize;
            tokens.extend_from_slice(&ids[at..at + seq_len]);
        }
        Ok(Segments { tokens, seq_len })
    }
}

fn temporary(e: std::io::Error) -> Error {
    Error::io(std::env::temp_dir(), e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What CPython's `random` draws for the same seeds, text lengths and
    /// documents (tools/fixtures/sampling.py).
    #[test]
    fn draws_are_cpythons() {
        let fixture: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/sampling.json")).unwrap();
        let number = |case: &Value, key: &str| case[key].as_u64().unwrap();
        for case in fixture["texts"].as_array().unwrap() {
            let (seed, seq_len) = (number(case, "seed"), number(case, "seq_len") as usize);
            let text: Vec<u32> = (0..number(case, "tokens") as u32).collect();
            let segments = Segments::draw(&text, 8, seq_len, seed).unwrap();
            let starts: Vec<u32> = segments.tokens.iter().step_by(seq_len).copied().collect();
            assert_eq!(serde_json::json!(starts), case["starts"], "seed {seed}");
        }
        for case in fixture["documents"].as_array().unwrap() {
            let (seed, seq_len) = (number(case, "seed"), number(case, "seq_len") as usize);
            // A document's text is its number and length; its tokens say where
            // they stood.
            let mut documents = Documents::new().unwrap();
            for (i, length) in case["lengths"].as_array().unwrap().iter().enumerate() {
                documents.push(&format!("{i} {length}")).unwrap();
            }
            let encode = |text: &str| {
                let (i, length) = text.split_once(' ').unwrap();
                let (i, length): (u32, u32) = (i.parse().unwrap(), length.parse().unwrap());
                Ok((0..length).map(|t| i << 16 | t).collect())
            };
            let segments = documents.draw(encode, 8, seq_len, seed).unwrap();
            let drawn: Vec<[u32; 2]> =
                segments.tokens.iter().step_by(seq_len).map(|t| [t >> 16, t & 0xffff]).collect();
            assert_eq!(serde_json::json!(drawn), case["drawn"], "seed {seed}");
        }
        for case in fixture["randint"].as_array().unwrap() {
            let (seed, max) = (number(case, "seed"), number(case, "max") as u32);
            let mut random = PythonRandom::new(seed);
            let drawn = [(); 5].map(|()| random.randint(max));
            assert_eq!(serde_json::json!(drawn), case["drawn"], "seed {seed} max {max}");
        }
    }

    #[test]
    fn documents_that_are_all_too_short_are_refused() {
        let encode = |text: &str| Ok(text.bytes().map(u32::from).collect());
        let mut documents = Documents::new().unwrap();
        ["abc", "", "abcd"].iter().for_each(|text| documents.push(text).unwrap());
        assert!(documents.draw(encode, 1, 4, 0).is_err());
        assert!(Documents::new().unwrap().draw(encode, 1, 4, 0).is_err());
    }

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

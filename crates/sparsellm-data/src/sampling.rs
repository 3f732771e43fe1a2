//! Draws calibration segments exactly as the authors' Python does.

use rand_mt::Mt;
use sparsellm_base::{Error, Result, input_error, usage_error};
use sparsellm_text::Segments;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
};

/// CPython's generator `random.Random(seed)`, as far as `randint` needs it.
pub struct PythonRandom(Mt);

impl PythonRandom {
    /// Makes a generator as `random.seed(seed)` does: the seed's 32-bit digits key the
    /// Mersenne Twister.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key = if high == 0 { vec![low] } else { vec![low, high] };
        PythonRandom(Mt::new_with_key(key))
    }

    /// Draws as `random.randint(0, max)` does: takes as many high bits as `max + 1` has, and
    /// redraws while the result exceeds `max`.
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

/// Draws `samples` segments of `seq_len` tokens from a tokenized text. Each begins
/// at `randint(0, len − seq_len − 1)`, as in the authors' code.
///
/// # Errors
/// Returns an error if the text is not longer than one segment, or `seq_len` is 0.
pub fn draw(text: &[u32], samples: usize, seq_len: usize, seed: u64) -> Result<Segments> {
    check_length(seq_len)?;
    let Some(last) = text.len().checked_sub(seq_len.saturating_add(1)) else {
        return input_error!(
            "the calibration text has {} tokens, too few for one segment of {seq_len}; give a longer text or a smaller `seq_len`",
            text.len()
        );
    };
    let Ok(last) = u32::try_from(last) else {
        return input_error!("the calibration text has more than 2^32 tokens");
    };
    let mut random = PythonRandom::new(seed);
    let mut tokens = Vec::with_capacity(total_tokens(samples, seq_len)?);
    for _ in 0..samples {
        let i = random.randint(last) as usize;
        tokens.extend_from_slice(&text[i..i + seq_len]);
    }
    Ok(Segments { tokens, seq_len })
}

/// Takes the first `samples` segments of a tokenized text in order, without drawing. This is
/// for files of token ids, which hold the segments themselves.
///
/// # Errors
/// Returns an error if there are too few tokens, or `seq_len` is 0.
pub fn first(text: &[u32], samples: usize, seq_len: usize) -> Result<Segments> {
    check_length(seq_len)?;
    match samples.checked_mul(seq_len).and_then(|n| text.get(..n)) {
        Some(tokens) => Ok(Segments { tokens: tokens.to_vec(), seq_len }),
        None => input_error!(
            "the calibration file has {} tokens, fewer than {samples} segments of {seq_len}; lower `samples` or `seq_len`",
            text.len()
        ),
    }
}

/// Cuts a tokenized text into consecutive windows of `seq_len` tokens, at most `max` of them;
/// a shorter remainder is dropped.
///
/// # Errors
/// Returns an error if the text is shorter than one window, or `seq_len` is 0.
pub fn windows(text: &[u32], seq_len: usize, max: Option<usize>) -> Result<Segments> {
    check_length(seq_len)?;
    let windows = (text.len() / seq_len).min(max.unwrap_or(usize::MAX));
    if windows == 0 {
        return input_error!(
            "the text has {} tokens, fewer than one window of {seq_len}; give a longer text or a smaller `seq_len`",
            text.len()
        );
    }
    Ok(Segments { tokens: text[..windows * seq_len].to_vec(), seq_len })
}

fn check_length(seq_len: usize) -> Result<()> {
    if seq_len == 0 {
        return usage_error!("`seq_len` is 0; a segment has at least one token");
    }
    Ok(())
}

/// The number of tokens in `samples` segments; an error if it is unreasonably large.
fn total_tokens(samples: usize, seq_len: usize) -> Result<usize> {
    match samples.checked_mul(seq_len) {
        Some(total) if total <= 1 << 31 => Ok(total),
        _ => {
            usage_error!(
                "`samples` {samples} of {seq_len} tokens are too many; 2^31 tokens is the limit"
            )
        }
    }
}

/// Documents from which segments are drawn, as from C4. Their text is kept in a temporary
/// file, since a shard of C4 holds 800 MB, of which only a few hundred documents are read.
pub struct Documents {
    file: BufWriter<File>,
    /// The offset in the file where each document ends.
    ends: Vec<u64>,
}

impl Documents {
    /// Creates the temporary file, without any documents.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(temporary)?;
        Ok(Documents { file: BufWriter::new(file), ends: Vec::new() })
    }

    /// Adds a document.
    ///
    /// # Errors
    /// Returns an error if the temporary file cannot be written.
    pub fn push(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(temporary)?;
        self.ends.push(self.ends.last().unwrap_or(&0) + text.len() as u64);
        Ok(())
    }

    /// Draws segments as the authors do from C4: a document, redrawn until it is longer than
    /// `seq_len` tokens, then the start of the segment in it. `encode` returns a document's
    /// token ids.
    ///
    /// # Errors
    /// Returns an error if no document is long enough or `seq_len` is 0, and any error of
    /// `encode`.
    pub fn draw(
        self,
        encode: impl Fn(&str) -> Result<Vec<u32>>,
        samples: usize,
        seq_len: usize,
        seed: u64,
    ) -> Result<Segments> {
        check_length(seq_len)?;
        let total = total_tokens(samples, seq_len)?;
        let mut file = self.file.into_inner().map_err(|e| temporary(e.into_error()))?;
        let mut random = PythonRandom::new(seed);
        let (mut tokens, mut too_short) = (Vec::with_capacity(total), BTreeSet::new());
        while tokens.len() < total {
            if too_short.len() == self.ends.len() {
                return input_error!(
                    "none of the {} documents is longer than {seq_len} tokens; give longer ones or a smaller `seq_len`",
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

    /// Expected values: what CPython's `random` draws for the same seeds, text lengths and
    /// documents (tools/fixtures/sampling.py).
    #[test]
    fn draws_are_cpythons() {
        let text = std::fs::read_to_string(sparsellm_testing::fixture("sampling.json")).unwrap();
        let fixture: Value = serde_json::from_str(&text).unwrap();
        let number = |case: &Value, key: &str| case[key].as_u64().unwrap();
        for case in fixture["texts"].as_array().unwrap() {
            let (seed, seq_len) = (number(case, "seed"), number(case, "seq_len") as usize);
            let text: Vec<u32> = (0..number(case, "tokens") as u32).collect();
            let segments = draw(&text, 8, seq_len, seed).unwrap();
            let starts: Vec<u32> = segments.tokens.iter().step_by(seq_len).copied().collect();
            assert_eq!(serde_json::json!(starts), case["starts"], "seed {seed}");
        }
        for case in fixture["documents"].as_array().unwrap() {
            let (seed, seq_len) = (number(case, "seed"), number(case, "seq_len") as usize);
            // A document's text is its number and length; its tokens encode their positions.
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
        assert!(draw(&text, 1, 10, 0).is_err());
        assert_eq!(draw(&text, 2, 9, 0).unwrap().tokens.len(), 18);
        assert!(first(&text, 2, 6).is_err());
        assert!(windows(&text, 11, None).is_err());
        assert!(windows(&text, 0, None).is_err() && first(&text, 1, 0).is_err());
        assert!(draw(&text, 1, 0, 0).is_err());
        assert_eq!(windows(&text, 3, None).unwrap().count(), 3);
        assert_eq!(windows(&text, 3, Some(2)).unwrap().count(), 2);
    }
}

//! The rotation of queries and keys by their positions.

use super::frequencies::{Frequencies, Scaling};
use std::sync::{Arc, PoisonError, RwLock};

/// The rotation of one kind of layer. The layers of a model share it, with the
/// cosines and sines that were made for the longest text so far.
#[derive(Debug)]
pub struct Rope {
    frequencies: Frequencies,
    table: RwLock<Table>,
}

/// Cosines and sines, position by position.
#[derive(Debug, Default)]
struct Table {
    /// The lengths of text that the values are for: [`Frequencies::regime`].
    regime: usize,
    values: Arc<Vec<f32>>,
}

impl Rope {
    /// Rotates `features` of each head, with the base `theta`:
    /// `θ^(−2i/r)` for the i-th pair.
    pub fn new(theta: f64, features: usize) -> Rope {
        Rope::from(Frequencies { theta, features, scaling: Scaling::Default })
    }

    /// How many features of a head are rotated: the first ones.
    pub fn features(&self) -> usize {
        self.frequencies.features / 2 * 2
    }

    /// The cosine and sine of each position of a text of `length` tokens, or of more
    /// positions: per position r/2 cosines, then as many sines.
    ///
    /// Some kinds of scaling rotate longer texts at other frequencies, so `length` is
    /// one more than the last position of the text so far.
    pub fn table(&self, length: usize) -> Arc<Vec<f32>> {
        let regime = self.frequencies.regime(length);
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if known.regime == regime && known.values.len() >= length * self.features() {
            return known.values.clone();
        }
        drop(known);
        let values = Arc::new(self.values(length));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) =
            Table { regime, values: values.clone() };
        values
    }

    fn values(&self, length: usize) -> Vec<f32> {
        let frequencies: Vec<f32> =
            self.frequencies.at(length).into_iter().map(|f| f as f32).collect();
        let magnitude = self.frequencies.magnitude() as f32;
        let mut values = Vec::with_capacity(length * self.features());
        for position in 0..length {
            let angle = |f: &f32| position as f32 * f;
            values.extend(frequencies.iter().map(|f| angle(f).cos() * magnitude));
            values.extend(frequencies.iter().map(|f| angle(f).sin() * magnitude));
        }
        values
    }

    /// Rotates the features of one head at one position: `cos_sin` is that
    /// position's part of [`Rope::table`].
    pub fn rotate(features: &mut [f32], cos_sin: &[f32]) {
        let half = features.len() / 2;
        let (first, second) = features.split_at_mut(half);
        let (cos, sin) = cos_sin.split_at(half);
        for i in 0..half {
            let (a, b) = (first[i], second[i]);
            first[i] = a * cos[i] - b * sin[i];
            second[i] = b * cos[i] + a * sin[i];
        }
    }
}

impl Rope {
    /// Takes the gradient with respect to rotated features back to that with respect to the
    /// features: multiplies it by the transpose of the rotation.
    pub(crate) fn rotate_back(gradient: &mut [f32], cos_sin: &[f32]) {
        let half = gradient.len() / 2;
        let (first, second) = gradient.split_at_mut(half);
        let (cos, sin) = cos_sin.split_at(half);
        for i in 0..half {
            let (a, b) = (first[i], second[i]);
            first[i] = a * cos[i] + b * sin[i];
            second[i] = b * cos[i] - a * sin[i];
        }
    }
}

impl From<Frequencies> for Rope {
    fn from(frequencies: Frequencies) -> Rope {
        Rope { frequencies, table: RwLock::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_and_keeps_its_rows() {
        let rope = Rope::new(100.0, 4);
        let (short, long) = (rope.table(3), rope.table(9));
        assert_eq!(short[..], long[..short.len()]);
        assert_eq!(rope.table(2).len(), long.len());
    }

    #[test]
    fn a_longer_text_has_a_table_of_its_own_where_the_scaling_says_so() {
        let scaling = Scaling::Dynamic { factor: 2.0, positions: 4.0 };
        let rope = Rope::from(Frequencies { theta: 100.0, features: 4, scaling });
        let (within, longer) = (rope.table(4), rope.table(8));
        assert_ne!(within[..], longer[..within.len()]);
        assert_eq!(rope.table(3)[..12], within[..12]);
    }
}

//! The keys and values of the tokens that came before.

use sparsellm_tensor::Matrix;

/// The keys and values that one block's attention has made of a text so far, so
/// that a next token is run alone.
#[derive(Clone, Debug, Default)]
pub struct KeyValueCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    tokens: usize,
}

impl KeyValueCache {
    /// Number of tokens whose keys and values are here.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether no token was run yet.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Adds the keys and values of the next tokens, and gives back those of all.
    pub(crate) fn extend(&mut self, keys: &Matrix, values: &Matrix) -> (Matrix, Matrix) {
        self.keys.extend_from_slice(&keys.data);
        self.values.extend_from_slice(&values.data);
        self.tokens += keys.rows;
        let all = |data: &mut Vec<f32>| Matrix::new(self.tokens, keys.cols, std::mem::take(data));
        (all(&mut self.keys), all(&mut self.values))
    }

    /// Takes back what [`extend`](Self::extend) gave.
    pub(crate) fn restore(&mut self, keys: Matrix, values: Matrix) {
        (self.keys, self.values) = (keys.data, values.data);
    }
}

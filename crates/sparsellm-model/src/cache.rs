//! The key/value cache, with which a text is continued token by token.

use sparsellm_tensor::Matrix;

/// The keys and values that one block's attention computed for a text so far, so that only
/// the next tokens need to be run.
#[derive(Clone, Debug, Default)]
pub struct KeyValueCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    tokens: usize,
}

impl KeyValueCache {
    /// The number of tokens whose keys and values are held.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether no token was run so far.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Adds the keys and values of the next tokens, and moves those of all tokens out, to be
    /// returned by [`restore`](Self::restore).
    pub(crate) fn extend(&mut self, keys: &Matrix, values: &Matrix) -> (Matrix, Matrix) {
        self.keys.extend_from_slice(&keys.data);
        self.values.extend_from_slice(&values.data);
        self.tokens += keys.rows;
        let all = |data: &mut Vec<f32>| Matrix::new(self.tokens, keys.cols, std::mem::take(data));
        (all(&mut self.keys), all(&mut self.values))
    }

    /// Takes the matrices back that [`extend`](Self::extend) moved out.
    pub(crate) fn restore(&mut self, keys: Matrix, values: Matrix) {
        (self.keys, self.values) = (keys.data, values.data);
    }
}

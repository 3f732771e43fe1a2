//! Whole segments, a few at a time: what goes through a block together.

use sparsellm_tensor::Matrix;

/// Tokens that go through a block together.
const CHUNK: usize = 2048;

/// How many segments go through a block together: about 2048 tokens. Sums over
/// tokens add up what each chunk gives, so that no rank has a part of one.
pub fn segments_per_chunk(seq_len: usize) -> usize {
    (CHUNK / seq_len.max(1)).max(1)
}

/// How many values of `hidden` make a chunk.
fn chunk_values(hidden: &Matrix, seq_len: usize) -> usize {
    (segments_per_chunk(seq_len) * seq_len * hidden.cols).max(1)
}

/// Copies of the chunks of `hidden: [segments·seq_len, d]`, in order.
pub fn chunks(hidden: &Matrix, seq_len: usize) -> impl Iterator<Item = Matrix> {
    let cols = hidden.cols;
    let parts = hidden.data.chunks(chunk_values(hidden, seq_len));
    parts.map(move |part| Matrix::new(part.len() / cols, cols, part.to_vec()))
}

/// Runs `body` on each chunk of `hidden: [segments·seq_len, d]`, and keeps what it
/// makes of it.
pub fn for_each_chunk(hidden: &mut Matrix, seq_len: usize, mut body: impl FnMut(&mut Matrix)) {
    let (cols, values) = (hidden.cols, chunk_values(hidden, seq_len));
    for part in hidden.data.chunks_mut(values) {
        let mut chunk = Matrix::new(part.len() / cols, cols, part.to_vec());
        body(&mut chunk);
        part.copy_from_slice(&chunk.data);
    }
}

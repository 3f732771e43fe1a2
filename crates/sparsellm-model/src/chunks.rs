//! Chunks of whole segments. Hidden states go through a block one chunk at a time, so that
//! temporaries stay small.

use sparsellm_tensor::Matrix;

/// The tokens of a chunk, unless one segment is longer.
const CHUNK: usize = 2048;

/// How many segments make a chunk of about 2048 tokens. Sums over tokens are made chunk by
/// chunk, so a chunk is never divided between ranks.
pub fn segments_per_chunk(seq_len: usize) -> usize {
    (CHUNK / seq_len.max(1)).max(1)
}

/// The number of values of `hidden` in a chunk.
fn chunk_values(hidden: &Matrix, seq_len: usize) -> usize {
    (segments_per_chunk(seq_len) * seq_len * hidden.cols).max(1)
}

/// Copies of the chunks of `hidden: [segments·seq_len, d]`, in order.
pub fn chunks(hidden: &Matrix, seq_len: usize) -> impl Iterator<Item = Matrix> {
    let cols = hidden.cols;
    let parts = hidden.data.chunks(chunk_values(hidden, seq_len));
    parts.map(move |part| Matrix::new(part.len() / cols, cols, part.to_vec()))
}

/// Replaces each chunk of `hidden: [segments·seq_len, d]` by what `body` makes of it.
pub fn for_each_chunk(hidden: &mut Matrix, seq_len: usize, mut body: impl FnMut(&mut Matrix)) {
    let (cols, values) = (hidden.cols, chunk_values(hidden, seq_len));
    for part in hidden.data.chunks_mut(values) {
        let mut chunk = Matrix::new(part.len() / cols, cols, part.to_vec());
        body(&mut chunk);
        part.copy_from_slice(&chunk.data);
    }
}

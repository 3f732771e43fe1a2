//! From text to token ids: tokenizers, files of text, calibration segments.

mod data;
mod sampling;
mod tokenizer;

pub use data::{Source, Use};
pub use sampling::{PythonRandom, Segments};
pub use tokenizer::Tokenizer;

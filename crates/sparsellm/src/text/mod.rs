//! Tokenizers, texts, and the segments calibration draws from them.

mod data;
mod npy;
mod parquet;
pub mod rows;
mod sampling;
mod tokenizer;
mod unwound;

pub use data::{Source, Use};
pub use sampling::Segments;
pub use tokenizer::Tokenizer;

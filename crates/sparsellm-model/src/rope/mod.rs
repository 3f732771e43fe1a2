//! Rotary position embeddings (Su et al., *RoFormer*, 2021), in Hugging Face's
//! layout: of the r features of a head that are rotated, feature i is rotated
//! together with feature i + r/2.

mod frequencies;
mod reader;
mod rotation;

pub(crate) use reader::RopeKeys;
pub use rotation::Rope;

//! Decoder-only language models as data. A [`Model`] is a [checkpoint] and its
//! [`Family`], which says how the stored tensors fit together: a decoder layer
//! comes out as a [`Block`], a plain struct that one forward pass serves for all
//! families. A new family is one file in `families/` and a line in its registry.
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-llama");
//! use sparsellm_model::{Model, Positions};
//!
//! let model = Model::open(folder.as_ref())?;
//! let mut hidden = model.embed(&[1, 2, 3, 4], 4)?;
//! for index in 0..model.shape().layers {
//!     let block = model.block(index)?;
//!     block.forward(&mut hidden, Positions::segments(4), None, |_group, _input| {});
//! }
//! let hidden = model.finish(hidden)?;
//! assert_eq!((hidden.rows, hidden.cols), (4, model.shape().hidden));
//! # Ok::<(), sparsellm_base::Error>(())
//! ```
//!
//! [checkpoint]: sparsellm_checkpoint::Checkpoint

mod attention;
mod backward;
mod block;
mod cache;
mod chunks;
mod config;
mod ends;
mod families;
mod family;
mod ffn;
mod linear;
mod model;
mod norm;
mod positions;
mod rope;
mod tensors;

pub use attention::Attention;
pub use backward::{BlockGradients, HalfInput, LinearGradient, NormGradient, VectorParameter};
pub use block::{Block, Group, HalfNorms, Part, Residual};
pub use cache::KeyValueCache;
pub use chunks::{chunks, for_each_chunk, segments_per_chunk};
pub use config::{Config, WITHOUT_EFFECT};
pub use ends::{Embedding, Head, LearnedPositions};
pub use families::{FAMILIES, Opening, Registration, open_family, supported_model_type};
pub use family::{Family, Shape};
pub use ffn::Ffn;
pub use linear::Linear;
pub use model::Model;
pub use norm::{Norm, Stored};
pub use positions::Positions;
pub use rope::Rope;
pub use sparsellm_tensor::Activation;
pub use tensors::Tensors;

//! SparseLLM (Bai et al., *SparseLLM: Towards Global Pruning of Pre-trained Language Models*,
//! NeurIPS 2024): the linears of a feed-forward network are pruned together, against the dense
//! network's output.
//!
//! With auxiliary variables z (and s) for the first linears' outputs and a for the last linear's
//! input, it minimises, one variable at a time,
//!
//! ```text
//! min  α‖Y − b₂ − a W₂ᵀ‖² + β‖a − φ(z)‖² + α‖z − b₁ − X W₁ᵀ‖²     (W₁, W₂ sparse)
//! ```
//!
//! where φ is `f(z)` for plain networks (relu for OPT) and `f(s)⊙z` for gated ones
//! (silu for LLaMA), whose gate adds a third term `α‖s − X W_gateᵀ‖²`.
//! `alternation.rs` has the loop; `relu.rs`, `smooth.rs` and `gated.rs` have the updates of z and
//! s for the kinds of φ.
//!
//! As published, W₂ is fitted to the auxiliary a. With the sequential refit it is fitted to the
//! activations that the pruned W₁ actually produces. The target Y may lean towards a reference,
//! and the masks of W₁ may favour neurons by their importance (docs/results.md).
//!
//! Tokens are streamed in chunks. Everything that the weights need is a sum over tokens, so only z
//! (and s) persist between epochs; a never does. Each rank holds X, Y and z (and s) of its own
//! tokens.

mod alternation;
mod gated;
pub mod memory;
mod network;
mod newton;
mod passes;
mod relu;
mod smooth;
mod streaming;
mod task;
mod updates;

pub use gated::Gated;
pub use network::prune_network;
pub use relu::ReluUpdates;
pub use smooth::Smooth;
pub use streaming::Streaming;
pub use task::{Outcome, Reference, Task};
pub use updates::Updates;

//! Sums over tokens, factors of damped Hessians, and how ranks share the making of
//! both.

mod factor;
mod gram;
mod spread;

pub use factor::{CholeskyFactor, InverseFactor, raised_damping};
pub use gram::{CrossGram, Gram};
pub use spread::{on_rows, rows_of};

//! Sums over tokens and factors of damped Hessians, and the work on both shared among ranks.

mod factor;
mod gram;
mod spread;

pub use factor::{CholeskyFactor, InverseFactor, raised_damping};
pub use gram::{CrossGram, Gram};
pub use spread::{on_rows, rows_of};

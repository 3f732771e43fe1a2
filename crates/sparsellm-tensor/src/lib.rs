//! Row-major f32 matrices and the few operations that pruning and running a model need: dense
//! products (thin wrappers over [faer]), products with pruned weights, element-wise kernels,
//! tiles of tokens, and a [ledger](profile::Ledger) of where the time goes.
//!
//! Work is split into sequential pieces whose number depends only on shapes, so that results
//! are identical to the byte for any number of threads.
//!
//! ```
//! use sparsellm_tensor::{Matrix, matmul_nt};
//!
//! let x = Matrix::new(1, 2, vec![1.0, 2.0]);
//! let w = Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
//! assert_eq!(matmul_nt(x.view(), w.view()).data, [1.0, 2.0, 3.0]); // X Wᵀ
//! ```

mod activation;
mod bf16;
mod float;
mod kept;
mod kernels;
mod matrix;
mod peak;
mod product;
pub mod profile;
mod sparse;
mod tiles;
mod weights;

pub use activation::{Activation, Gelu, GeluTanh, Relu, Scalar, Silu};
pub use bf16::Arithmetic;
pub use float::{FloatType, PIECE, decode, encode};
pub use kept::Kept;
pub use kernels::{divergence, dot, exp_shifted, exp_sum, largest, softcap, vectorized};
pub use matrix::{Matrix, View};
pub use peak::gemm_peak;
pub use product::{matmul, matmul_nt, panel_rows, sub_matmul_right_of, tile_matmul_nt};
pub use sparse::SparseWeights;
pub use tiles::{TILE, tiles};
pub use weights::{Weights, WeightsMut};

//! The problem that every second-order method solves, and its solvers.

mod admm;
mod kind;
mod obs;
mod problem;
mod refit;

pub use kind::Solver;
pub use problem::{Problem, prune_matrix};
pub use refit::refit;

//! `sparsellm sweep`: a grid of models, methods and settings, pruned and
//! measured, with a report.

mod folder;
mod recipe;
mod run;
mod subject;

pub use recipe::Recipe;
pub use run::run;

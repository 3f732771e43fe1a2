//! The whole report.

use super::document::Page;
use super::sweep::Sweep;
use super::{one, sections};

/// The page of a sweep, or of its only run; without empty sections.
pub fn page(sweep: &Sweep) -> Page {
    let mut page = match sweep.runs.as_slice() {
        [run] => one::page(sweep, run),
        _ => sections::page(sweep),
    };
    page.sections.retain(|s| !(s.tables.is_empty() && s.figures.is_empty()));
    page
}

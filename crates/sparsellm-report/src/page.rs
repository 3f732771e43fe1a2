//! The report of any sweep, whether it has one run or many.

use super::document::Page;
use super::sweep::Sweep;
use super::{one, sections};

/// The report of a sweep. A sweep of a single run gets the detailed report of that run. Empty
/// sections are left out.
pub fn page(sweep: &Sweep) -> Page {
    let mut page = match sweep.runs.as_slice() {
        [run] => one::page(sweep, run),
        _ => sections::page(sweep),
    };
    page.sections.retain(|s| !(s.tables.is_empty() && s.figures.is_empty()));
    page
}

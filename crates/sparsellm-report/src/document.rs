//! A report as data, before it is rendered as Markdown or HTML.

use super::plot::Plot;

/// A whole report.
pub struct Page {
    pub title: String,
    /// One or two sentences that stand below the title.
    pub lead: String,
    pub sections: Vec<Section>,
}

/// A section of a report. A section without tables and figures is left out.
#[derive(Default)]
pub struct Section {
    pub title: &'static str,
    /// A sentence above the tables and figures that says how to read them.
    pub note: String,
    pub tables: Vec<Table>,
    pub figures: Vec<Figure>,
}

/// A table in which every row and every column has a heading.
pub struct Table {
    pub caption: String,
    /// The heading of the first column, which holds the rows' headings.
    pub corner: &'static str,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    pub look: Look,
}

/// How HTML shows a table.
#[derive(Clone, Copy, PartialEq)]
pub enum Look {
    /// The cells are numbers, which stay on one line.
    Numbers,
    /// The cells are words, which may wrap.
    Words,
    /// The cells are numbers, and the table is collapsed until the reader opens it, because it
    /// is long or repeats a figure.
    Folded,
}

/// A row of a table. A row without cells is a heading for the rows that follow.
pub struct Row {
    pub label: String,
    pub cells: Vec<Cell>,
}

/// A cell of a table.
#[derive(Clone, Default)]
pub struct Cell {
    pub text: String,
    /// Whether this is the best value of those it is compared with, which is shown in bold.
    pub best: bool,
}

/// A plot with its caption.
pub struct Figure {
    pub caption: String,
    pub plot: Plot,
}

impl Row {
    /// A heading for the rows that follow.
    pub fn heading(label: String) -> Row {
        Row { label, cells: Vec::new() }
    }

    /// A row of plain cells, none of which is marked as the best.
    pub fn new(label: impl Into<String>, cells: impl IntoIterator<Item = String>) -> Row {
        let cells = cells.into_iter().map(|text| Cell { text, best: false }).collect();
        Row { label: label.into(), cells }
    }
}

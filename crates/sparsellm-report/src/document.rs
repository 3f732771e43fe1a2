//! What a report consists of, before it becomes Markdown or HTML.

use super::plot::Plot;

/// A report.
pub struct Page {
    pub title: String,
    /// One or two sentences below the title.
    pub lead: String,
    pub sections: Vec<Section>,
}

/// A part of a report. One without tables and figures is left out.
#[derive(Default)]
pub struct Section {
    pub title: &'static str,
    /// How to read what follows.
    pub note: String,
    pub tables: Vec<Table>,
    pub figures: Vec<Figure>,
}

/// A table with a heading in every row and column.
pub struct Table {
    pub caption: String,
    /// Heads the column of row headings.
    pub corner: &'static str,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    pub look: Look,
}

/// How a table is shown as HTML.
#[derive(Clone, Copy, PartialEq)]
pub enum Look {
    /// As numbers.
    Numbers,
    /// As words, which may break.
    Words,
    /// As numbers, folded up: too long, or too much like a figure, to be shown
    /// unasked.
    Folded,
}

/// A row; one without cells heads those that follow.
pub struct Row {
    pub label: String,
    pub cells: Vec<Cell>,
}

#[derive(Clone, Default)]
pub struct Cell {
    pub text: String,
    /// The best of its kind.
    pub best: bool,
}

/// A plot with what it shows.
pub struct Figure {
    pub caption: String,
    pub plot: Plot,
}

impl Row {
    pub fn heading(label: String) -> Row {
        Row { label, cells: Vec::new() }
    }

    pub fn new(label: impl Into<String>, cells: impl IntoIterator<Item = String>) -> Row {
        let cells = cells.into_iter().map(|text| Cell { text, best: false }).collect();
        Row { label: label.into(), cells }
    }
}

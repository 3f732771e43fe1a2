//! What a report consists of, before it becomes Markdown or HTML.

use super::group::{Group, Stat, patterns};
use super::plot::Plot;
use super::sweep::{Run, Sweep};
use super::{one, sections};

/// A report.
pub struct Page {
    pub title: String,
    /// One or two sentences below the title.
    pub lead: String,
    pub sections: Vec<Section>,
}

/// The page of a sweep, or of its only run; without empty sections.
pub fn page(sweep: &Sweep) -> Page {
    let mut page = match sweep.runs.as_slice() {
        [run] => one::page(sweep, run),
        _ => sections::page(sweep),
    };
    page.sections.retain(|s| !(s.tables.is_empty() && s.figures.is_empty()));
    page
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

impl Table {
    /// The means of `value`, a row for each group and a column for each
    /// pattern; none where there are none. Groups that were run at one of
    /// several patterns alone (to vary a setting) get a table of their own,
    /// folded: among the others they would be mostly gaps.
    pub fn by_pattern(
        caption: String,
        groups: &[Group],
        value: impl Fn(&Run) -> Option<f64>,
        write: fn(&Stat) -> String,
        best: Best,
    ) -> Vec<Table> {
        let runs = groups.iter().flat_map(|g| g.runs.iter().copied());
        let columns = patterns(&runs.filter(|r| value(r).is_some()).collect::<Vec<_>>());
        let means = groups.iter().map(|g| {
            (g.label.clone(), columns.iter().map(|p| g.stat(p, &value)).collect::<Vec<_>>())
        });
        let count = |stats: &[Option<Stat>]| stats.iter().flatten().count();
        let (mut main, mut rest): (Vec<_>, Vec<_>) = means
            .filter(|(_, stats)| count(stats) > 0)
            .partition(|(_, stats)| count(stats) > 1 || columns.len() == 1);
        if main.is_empty() {
            main.append(&mut rest);
        }
        let table = |means, caption, look| Table {
            caption,
            corner: "method",
            columns: columns.iter().map(|p| spaced(p)).collect(),
            rows: rows(means, write, best),
            look,
        };
        let folded = format!("{caption}: at one pattern only");
        let tables =
            [table(main, caption, Look::Numbers), table(rest, folded, Look::Folded)].into_iter();
        tables.filter(|table| !table.rows.is_empty()).collect()
    }
}

/// Which of several means is the best.
#[derive(Clone, Copy, PartialEq)]
pub enum Best {
    Lowest,
    Highest,
    /// None: they are not to be compared.
    Neither,
}

/// Rows of means, with the best of each column marked where there is a choice.
pub fn rows(
    means: Vec<(String, Vec<Option<Stat>>)>,
    write: fn(&Stat) -> String,
    best: Best,
) -> Vec<Row> {
    let best_of = |column: usize| {
        let means: Vec<f64> =
            means.iter().filter_map(|(_, stats)| Some((*stats.get(column)?)?.mean)).collect();
        let found = match best {
            Best::Lowest => means.iter().copied().reduce(f64::min),
            Best::Highest => means.iter().copied().reduce(f64::max),
            Best::Neither => None,
        };
        found.filter(|b| b.is_finite() && means.len() > 1)
    };
    let columns = means.iter().map(|(_, stats)| stats.len()).max().unwrap_or(0);
    let bests: Vec<Option<f64>> = (0..columns).map(best_of).collect();
    let cell = |(stat, best): (&Option<Stat>, &Option<f64>)| match stat {
        Some(s) => Cell { text: write(s), best: Some(s.mean) == *best },
        None => Cell { text: NOTHING.into(), best: false },
    };
    let row = |(label, stats): (String, Vec<Option<Stat>>)| Row {
        label,
        cells: stats.iter().zip(&bests).map(cell).collect(),
    };
    means.into_iter().map(row).collect()
}

/// Stands where there is nothing to show.
pub const NOTHING: &str = "–";

/// `write`n, where there is something to write.
pub fn shown<T>(value: Option<T>, write: impl Fn(T) -> String) -> String {
    value.map_or(NOTHING.into(), write)
}

/// Four significant digits: `1.838`, `62.05`, `19955`, `1.20e9`.
pub fn number(v: f64) -> String {
    let size = v.abs();
    match size {
        _ if !size.is_finite() => "inf".into(),
        _ if size >= 1e6 => format!("{v:.2e}"),
        _ => format!("{v:.*}", decimals(v)),
    }
}

/// The same with as many decimals for the deviation as for the mean.
pub fn with_deviation(stat: &Stat) -> String {
    match stat.deviation {
        Some(d) if d.is_finite() && stat.mean.abs() < 1e6 => {
            format!("{} ± {d:.*}", number(stat.mean), decimals(stat.mean))
        }
        Some(d) => format!("{} ± {}", number(stat.mean), number(d)),
        None => number(stat.mean),
    }
}

fn decimals(v: f64) -> usize {
    match v.abs() {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        s if s < 1000.0 => 1,
        _ => 0,
    }
}

/// Three significant digits of a relative error: `0.0312`, `4.10e-5`.
pub fn error(v: f64) -> String {
    let size = v.abs();
    match size {
        _ if !size.is_finite() => "inf".into(),
        _ if size == 0.0 => "0".into(),
        s if !(1e-3..1e3).contains(&s) => format!("{v:.2e}"),
        s if s < 0.01 => format!("{v:.5}"),
        s if s < 0.1 => format!("{v:.4}"),
        s if s < 1.0 => format!("{v:.3}"),
        _ => format!("{v:.2}"),
    }
}

/// A fraction in percent, with the space that no line breaks at.
pub fn percent(v: f64, decimals: usize) -> String {
    format!("{:.decimals$}\u{a0}%", 100.0 * v)
}

/// `70%` as it is read: `70 %`.
pub fn spaced(pattern: &str) -> String {
    match pattern.strip_suffix('%') {
        Some(number) => format!("{}\u{a0}%", number.trim_end()),
        None => pattern.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_significant_digits() {
        let shown = [1.8376, 62.049, 337.84, 19954.6, 1.2e9, f64::NAN].map(number);
        assert_eq!(shown, ["1.838", "62.05", "337.8", "19955", "1.20e9", "inf"]);
        let stat = Stat { mean: 24.04, deviation: Some(0.3456) };
        assert_eq!(with_deviation(&stat), "24.04 ± 0.35");
        assert_eq!(
            [0.0, 0.5, 0.03124, 0.00312, 4.1e-5].map(error),
            ["0", "0.500", "0.0312", "0.00312", "4.10e-5"]
        );
        assert_eq!(spaced("62.5%"), "62.5\u{a0}%");
    }

    #[test]
    fn the_best_of_each_column_is_marked() {
        let means = |label: &str, values: [f64; 3]| {
            (label.to_string(), values.iter().map(|v| Stat::of([*v])).collect())
        };
        let all =
            vec![means("a", [3.0, 2.0, f64::INFINITY]), means("b", [1.0, 2.0, f64::INFINITY])];
        let rows = rows(all, with_deviation, Best::Lowest);
        let best: Vec<Vec<bool>> =
            rows.iter().map(|r| r.cells.iter().map(|c| c.best).collect()).collect();
        assert_eq!(best, [[false, true, false], [true, true, false]]);
    }
}

//! Tables of means.

use super::document::{Cell, Look, Row, Table};
use super::format::{NOTHING, spaced};
use super::group::{Group, patterns};
use super::stat::Stat;
use super::sweep::Run;

/// Which of several means counts as the best.
#[derive(Clone, Copy, PartialEq)]
pub enum Best {
    Lowest,
    Highest,
    /// None: the means are not comparable.
    Neither,
}

/// Rows of means. The best of each column is marked if the column has several means.
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

/// Tables of the means of `value`, with a row for each group and a column for each pattern.
/// Groups that were run at only one of several patterns, usually to vary a setting, go into a
/// folded table of their own: among the others, most of their cells would be empty. Empty
/// tables are left out.
pub fn by_pattern(
    caption: String,
    groups: &[Group],
    value: impl Fn(&Run) -> Option<f64>,
    write: fn(&Stat) -> String,
    best: Best,
) -> Vec<Table> {
    let runs = groups.iter().flat_map(|g| g.runs.iter().copied());
    let columns = patterns(&runs.filter(|r| value(r).is_some()).collect::<Vec<_>>());
    let means = groups
        .iter()
        .map(|g| (g.label.clone(), columns.iter().map(|p| g.stat(p, &value)).collect::<Vec<_>>()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::with_deviation;

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

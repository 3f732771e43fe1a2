//! The figures of a sweep, with tables of the same numbers: perplexity against sparsity, against
//! α and β, and against the number of calibration samples; and the error of the feed-forward
//! network in each layer.

use super::axis::Scale;
use super::document::{Figure, Look, Section, Table};
use super::format::{error, number, spaced, with_deviation};
use super::group::{Group, Labels, by_number, parse, patterns};
use super::means::{Best, by_pattern, rows};
use super::plot::{Grid, Lines, Plot, Series, Style};
use super::stat::Stat;
use super::sweep::{Run, Sweep, distinct, mean_kept_error, on};
use sparsellm_prune::{LayerReport, Pattern};

/// Perplexity against sparsity, with one line for each group that was run at two sparsities or
/// more.
pub fn sparsity(
    model: &str,
    text: &str,
    dense: Option<f64>,
    groups: &[Group],
    styles: &[String],
) -> Option<Figure> {
    let mut series = Vec::new();
    for group in groups {
        let (mut line, mut hollow) = (Vec::new(), Vec::new());
        for name in patterns(&group.runs) {
            let stat = group.stat(name, |r| on(&r.perplexity, text));
            let (Some(pattern), Some(stat)) = (parse(name), stat) else { continue };
            let point = (100.0 * pattern.sparsity(), stat.mean);
            match pattern {
                Pattern::Unstructured(_) => line.push(point),
                Pattern::NofM { .. } => hollow.push(point),
            }
        }
        let xs = distinct(line.iter().chain(&hollow).map(|p: &(f64, f64)| p.0));
        if xs.len() > 1 {
            let style = Style::of(&group.label, styles);
            series.push(Series { hollow, ..Series::with_marks(group.label.clone(), style, line) });
        }
    }
    figure(
        format!("{model} on {text}"),
        Lines {
            x: ("sparsity in %", Scale::Linear),
            y: "perplexity",
            hollow: "N:M patterns",
            series,
            level: dense.map(|d| (format!("dense {}", number(d)), d)),
        },
    )
}

/// A figure of lines, or `None` if there is nothing to draw. The caption says so if points are
/// left out.
pub fn figure(caption: String, lines: Lines) -> Option<Figure> {
    let lost =
        if lines.drops_points() { " (values that are not finite are not drawn)" } else { "" };
    let caption = caption + lost;
    (!lines.is_empty()).then_some(Figure { caption, plot: Plot::Lines(lines) })
}

/// The section on the feed-forward network's error. Its figures show the error in each layer,
/// with one line per epoch, for the first run of each method at the pattern nearest to 70 %.
pub fn ffn_error(sweep: &Sweep, labels: &Labels) -> Section {
    let (mut tables, mut figures) = (Vec::new(), Vec::new());
    for model in sweep.models() {
        let mut runs = sweep.runs_of(model);
        runs.retain(|r| mean_kept_error(r).is_some());
        tables.extend(by_pattern(
            format!("{model}, mean over layers"),
            &labels.groups(&runs, &[]),
            mean_kept_error,
            |s| error(s.mean),
            Best::Neither,
        ));
        let distance = |p: &&str| parse(p).map_or(1.0, |p| (p.sparsity() - 0.7).abs());
        let nearest =
            patterns(&runs).into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        for method in distinct(runs.iter().map(|r| r.method.as_str())) {
            let shown =
                runs.iter().find(|r| r.method == method && Some(r.pattern.as_str()) == nearest);
            figures.extend(shown.and_then(|run| {
                let pattern = spaced(&run.pattern);
                epochs(format!("{model} at {pattern} by {}", labels.label(run, &[])), &run.layers)
            }));
        }
    }
    Section {
        title: "Error of the feed-forward network",
        note: "Relative, on the calibration tokens. Figures show the first run of each method at the pattern nearest to 70\u{a0}%; markers are at the epochs that were kept.".into(),
        tables,
        figures,
    }
}

/// The error of the feed-forward network in each layer, with one line per epoch.
pub fn epochs(caption: String, layers: &[LayerReport]) -> Option<Figure> {
    let epochs = layers.iter().map(|l| l.ffn_error.len()).max().unwrap_or(0);
    let of = |epoch: usize| {
        let point = move |l: &LayerReport| Some((l.index as f64, *l.ffn_error.get(epoch)?));
        let kept = layers.iter().filter(move |l| l.kept_epoch == epoch + 1);
        Series {
            label: format!("epoch {}", epoch + 1),
            style: Style::step(epoch, epochs),
            line: layers.iter().filter_map(point).collect(),
            marks: kept.filter_map(point).collect(),
            hollow: Vec::new(),
        }
    };
    let series = (0..epochs).map(of).collect();
    let lines =
        Lines { x: ("layer", Scale::Whole), y: "relative error", hollow: "", series, level: None };
    figure(caption, lines).filter(|_| layers.len() > 1)
}

/// The section on perplexity against α and β, for groups of runs in which both vary.
pub fn penalties(sweep: &Sweep, labels: &Labels) -> Section {
    let mut section = Section {
        title: "α and β",
        note: "Perplexity; darker is lower, which is better. The colours are logarithmic.".into(),
        ..Section::default()
    };
    for model in sweep.models() {
        for group in labels.groups(&sweep.runs_of(model), &["alpha", "beta"]) {
            for pattern in patterns(&group.runs) {
                for text in sweep.texts(Some(model)) {
                    let caption =
                        format!("{model} at {} by {} on {text}", spaced(pattern), group.label);
                    let value = |r: &Run| on(&r.perplexity, text);
                    if let Some((figure, table)) = grid(caption, &group, pattern, value) {
                        section.figures.push(figure);
                        section.tables.push(table);
                    }
                }
            }
        }
    }
    section
}

/// `value` against α and β, as a figure and as a table; `None` unless both vary.
fn grid(
    caption: String,
    group: &Group,
    pattern: &str,
    value: impl Fn(&Run) -> Option<f64>,
) -> Option<(Figure, Table)> {
    let runs = group.runs.iter().filter(|r| r.pattern == pattern && value(r).is_some());
    let runs: Vec<&Run> = runs.copied().collect();
    let (alphas, betas) = (values(&runs, "alpha"), values(&runs, "beta"));
    if alphas.len() < 2 || betas.len() < 2 {
        return None;
    }
    let stat = |alpha: &str, beta: &str| {
        let here = |r: &Run| is(r, "alpha", alpha) && is(r, "beta", beta);
        group.stat(pattern, |r| value(r).filter(|_| here(r)))
    };
    let stats: Vec<Vec<Option<Stat>>> =
        betas.iter().map(|b| alphas.iter().map(|a| stat(a, b)).collect()).collect();
    let owned = |labels: &[&str]| labels.iter().map(|l| l.to_string()).collect::<Vec<_>>();
    let cell = |stat: &Option<Stat>| stat.map(|s| (s.mean, number(s.mean)));
    let plot = Plot::Grid(Grid {
        x: ("α", owned(&alphas)),
        y: ("β", owned(&betas)),
        cells: stats.iter().map(|row| row.iter().map(cell).collect()).collect(),
    });
    let means = owned(&betas).into_iter().zip(stats).collect();
    let table = Table {
        caption: caption.clone(),
        corner: "β \\ α",
        columns: owned(&alphas),
        rows: rows(means, with_deviation, Best::Neither),
        look: Look::Folded,
    };
    Some((Figure { caption, plot }, table))
}

/// Whether the run has this value of the setting.
fn is(run: &Run, setting: &str, value: &str) -> bool {
    run.settings.get(setting).is_some_and(|v| v == value)
}

/// The values of a setting in `runs`, smallest first.
fn values<'a>(runs: &[&'a Run], name: &str) -> Vec<&'a str> {
    let mut values = distinct(runs.iter().filter_map(|r| r.settings.get(name).map(String::as_str)));
    values.sort_by(|a, b| by_number(a, b));
    values
}

/// The section on perplexity against the number of calibration samples, for groups of runs in
/// which that number varies.
pub fn calibration(sweep: &Sweep, labels: &Labels) -> Section {
    let mut section = Section {
        title: "Size of the calibration set",
        note: "Perplexity against the number of calibration segments.".into(),
        ..Section::default()
    };
    let all: Vec<&Run> = sweep.runs.iter().collect();
    let styles: Vec<String> =
        labels.groups(&all, &["samples"]).into_iter().map(|g| g.label).collect();
    for model in sweep.models() {
        let runs = sweep.runs_of(model);
        for pattern in patterns(&runs) {
            let runs: Vec<&Run> = runs.iter().filter(|r| r.pattern == pattern).copied().collect();
            let mut groups = labels.groups(&runs, &["samples"]);
            groups.retain(|g| values(&g.runs, "samples").len() > 1);
            let runs: Vec<&Run> = groups.iter().flat_map(|g| g.runs.iter().copied()).collect();
            let columns = values(&runs, "samples");
            for text in sweep.texts(Some(model)) {
                let stat = |g: &Group, samples: &str| {
                    let value = |r: &Run| on(&r.perplexity, text);
                    g.stat(pattern, |r| value(r).filter(|_| is(r, "samples", samples)))
                };
                let series = groups.iter().map(|g| {
                    let point = |s: &&str| Some((s.parse().ok()?, stat(g, s)?.mean));
                    let line: Vec<(f64, f64)> = columns.iter().filter_map(point).collect();
                    Series::with_marks(g.label.clone(), Style::of(&g.label, &styles), line)
                });
                let lines = Lines {
                    x: ("samples", Scale::LogValues),
                    y: "perplexity",
                    hollow: "",
                    series: series.collect(),
                    level: None,
                };
                let caption = format!("{model} at {} on {text}", spaced(pattern));
                let Some(figure) = figure(caption.clone(), lines) else { continue };
                let means = groups.iter().map(|g| {
                    (g.label.clone(), columns.iter().map(|c| stat(g, c)).collect::<Vec<_>>())
                });
                section.figures.push(figure);
                section.tables.push(Table {
                    caption,
                    corner: "method \\ samples",
                    columns: columns.iter().map(|c| c.to_string()).collect(),
                    rows: rows(means.collect(), with_deviation, Best::Neither),
                    look: Look::Folded,
                });
            }
        }
    }
    section
}

//! The report of a single run.

use super::axis::Scale;
use super::document::{Look, Page, Row, Section, Table};
use super::figures::{epochs, figure};
use super::format::{NOTHING, error, number, percent, shown, spaced};
use super::plot::{Lines, Series, Style};
use super::sweep::{Run, Sweep, distinct, kept_error, on};
use sparsellm_prune::{LayerReport, LinearReport, tune::HalfReport};

/// The report of `run`, the only one of `sweep`.
pub fn page(sweep: &Sweep, run: &Run) -> Page {
    Page {
        title: sweep.title.clone(),
        lead: format!(
            "{} at {} by {}: {} of the pruned weights are zero. Made by sparsellm {}.",
            run.model,
            spaced(&run.pattern),
            run.method,
            percent(run.sparsity, 2),
            sweep.version
        ),
        sections: vec![measured(sweep, run), settings(run), tuning(run), layers(run), linears(run)],
    }
}

/// The section on the figures before and after pruning.
fn measured(sweep: &Sweep, run: &Run) -> Section {
    let dense = sweep.dense(&run.model);
    let mut tables = Vec::new();
    let show = |v: Option<f64>| shown(v, number);
    let perplexity = run.perplexity.iter().map(|m| {
        let before = dense.and_then(|d| on(&d.perplexity, &m.data));
        let size = [m.windows, m.seq_len].map(|n| n.to_string());
        Row::new(&m.data, [show(before), number(m.perplexity)].into_iter().chain(size))
    });
    tables.push(Table {
        caption: "Perplexity (lower is better)".into(),
        corner: "text",
        columns: ["dense", "pruned", "windows", "tokens each"].map(String::from).into(),
        rows: perplexity.collect(),
        look: Look::Numbers,
    });
    let show = |v: Option<f64>| shown(v, |v| format!("{:.1}", 100.0 * v));
    let normed = run.tasks.iter().any(|t| t.acc_norm.is_some());
    let tasks = run.tasks.iter().map(|t| {
        let before = dense.and_then(|d| d.tasks.iter().find(|b| b.task == t.task));
        let mut cells = vec![t.items.to_string(), show(before.map(|b| b.acc)), show(Some(t.acc))];
        if normed {
            cells.extend([show(before.and_then(|b| b.acc_norm)), show(t.acc_norm)]);
        }
        Row::new(&t.task, cells)
    });
    let columns = ["questions", "dense", "pruned", "dense, per length", "pruned, per length"];
    tables.push(Table {
        caption: "Zero-shot accuracy in percent (higher is better)".into(),
        corner: "task",
        columns: columns[..if normed { 5 } else { 3 }].iter().map(|c| c.to_string()).collect(),
        rows: tasks.collect(),
        look: Look::Numbers,
    });
    tables.retain(|t| !t.rows.is_empty());
    Section { title: "Before and after", tables, ..Section::default() }
}

fn settings(run: &Run) -> Section {
    let mut rows =
        vec![Row::new("method", [run.method.clone()]), Row::new("pattern", [spaced(&run.pattern)])];
    rows.extend(run.settings.iter().map(|(name, value)| Row::new(name, [value.clone()])));
    rows.extend(run.seconds.map(|s| Row::new("seconds", [number(s)])));
    rows.extend(
        run.peak_rss_bytes.map(|b| Row::new("peak memory", [format!("{:.0} MB", b as f64 / 1e6)])),
    );
    let table = Table {
        caption: "What was asked for".into(),
        corner: "option",
        columns: vec!["value".into()],
        rows,
        look: Look::Words,
    };
    Section { title: "Settings", tables: vec![table], ..Section::default() }
}

/// The section on what tuning did: the losses by epoch, and the errors of half-blocks by layer.
fn tuning(run: &Run) -> Section {
    let mut figures = Vec::new();
    if let Some(tune) = &run.tune {
        let points = |first: usize, losses: &[f64]| -> Vec<(f64, f64)> {
            (first..).zip(losses).map(|(epoch, loss)| (epoch as f64, *loss)).collect()
        };
        let mut held_out =
            Series::with_marks("held out".into(), Style::category(0), points(0, &tune.held_out));
        held_out.marks.retain(|(epoch, _)| *epoch == tune.kept_epoch as f64);
        let training =
            Series::with_marks("training".into(), Style::category(1), points(1, &tune.training));
        let lines = Lines {
            x: ("epoch", Scale::Whole),
            y: "divergence per token",
            hollow: "",
            series: vec![held_out, training],
            level: None,
        };
        let caption = "Divergence from the dense model's next-token probabilities while the whole model was tuned; the marker on the line of held-out segments is at the epoch that was kept";
        figures.extend(figure(caption.into(), lines));
    }
    let halves = distinct(run.layers.iter().flat_map(|l| l.tuned.keys()));
    let series = halves.iter().enumerate().flat_map(|(i, half)| {
        let line = |when: &str, style, loss: fn(&HalfReport) -> Option<f64>| {
            let point =
                |l: &LayerReport| Some((l.index as f64, l.tuned.get(*half).and_then(loss)?));
            let line = run.layers.iter().filter_map(point).collect();
            Series::with_marks(format!("{half}, {when}"), Style::category(style), line)
        };
        [
            line("before", 2 * i, |half| half.held_out.first().copied()),
            line("after", 2 * i + 1, |half| half.held_out.get(half.kept_epoch).copied()),
        ]
    });
    let lines = Lines {
        x: ("layer", Scale::Whole),
        y: "relative error",
        hollow: "",
        series: series.collect(),
        level: None,
    };
    let caption = "Error of half-blocks on held-out segments, before and after they were tuned";
    figures.extend(figure(caption.into(), lines).filter(|_| run.layers.len() > 1));
    Section { title: "Tuning", figures, ..Section::default() }
}

fn layers(run: &Run) -> Section {
    let global = run.layers.iter().any(|l| !l.ffn_error.is_empty());
    let raised = run.layers.iter().any(|l| l.linears.values().any(|l| l.raised_damping.is_some()));
    let mut columns = vec!["mean sparsity"];
    if global {
        columns.extend(["FFN error, epoch 1", "kept", "kept epoch"]);
    }
    if raised {
        columns.push("raised damping");
    }
    let show = |v: Option<f64>| shown(v, error);
    let row = |l: &LayerReport| {
        let n = l.linears.len().max(1) as f64;
        let sparsity = l.linears.values().map(|l| l.sparsity).sum::<f64>() / n;
        let mut cells = vec![percent(sparsity, 2)];
        if global {
            let epoch = if l.kept_epoch > 0 { l.kept_epoch.to_string() } else { NOTHING.into() };
            cells.extend([show(l.ffn_error.first().copied()), show(kept_error(l)), epoch]);
        }
        if raised {
            let dampings = l.linears.iter().filter_map(|(name, l)| Some((name, l.raised_damping?)));
            let dampings: Vec<String> = dampings.map(|(name, d)| format!("{name}: {d}")).collect();
            cells.push(dampings.join(", "));
        }
        Row::new(l.index.to_string(), cells)
    };
    let table = Table {
        caption: "Each decoder layer".into(),
        corner: "layer",
        columns: columns.into_iter().map(String::from).collect(),
        rows: run.layers.iter().map(row).collect(),
        look: if run.layers.len() > 40 { Look::Folded } else { Look::Numbers },
    };
    let caption = "Error of the feed-forward network after each epoch; markers are at the epochs that were kept";
    Section {
        title: "Layers",
        tables: if table.rows.is_empty() { Vec::new() } else { vec![table] },
        figures: epochs(caption.into(), &run.layers).into_iter().collect(),
        ..Section::default()
    }
}

/// The section on every linear's sparsity and error.
fn linears(run: &Run) -> Section {
    let names = distinct(run.layers.iter().flat_map(|l| l.linears.keys()));
    let table = |caption: &str, figure: &dyn Fn(&LinearReport) -> Option<String>| {
        let row = |l: &LayerReport| {
            let cell =
                |name: &&String| l.linears.get(*name).and_then(figure).unwrap_or(NOTHING.into());
            Row::new(l.index.to_string(), names.iter().map(cell))
        };
        Table {
            caption: caption.into(),
            corner: "layer",
            columns: names.iter().map(|n| n.to_string()).collect(),
            rows: run.layers.iter().map(row).collect(),
            look: Look::Folded,
        }
    };
    let known = run.layers.iter().flat_map(|l| l.linears.values()).any(|l| l.error.is_some());
    let mut tables = Vec::new();
    if !names.is_empty() {
        tables.push(table("Sparsity of every linear", &|l| Some(percent(l.sparsity, 2))));
    }
    if known {
        tables.push(table("Error of every linear's output", &|l| l.error.map(error)));
    }
    let series = names.iter().enumerate().map(|(i, name)| {
        let point = |l: &LayerReport| Some((l.index as f64, l.linears.get(*name)?.error?));
        let line: Vec<(f64, f64)> = run.layers.iter().filter_map(point).collect();
        Series::with_marks(name.to_string(), Style::category(i), line)
    });
    let lines = Lines {
        x: ("layer", Scale::Whole),
        y: "relative error",
        hollow: "",
        series: series.filter(|s| !s.line.is_empty()).collect(),
        level: None,
    };
    let caption = "Error of every linear's output on the calibration tokens";
    Section {
        title: "Linears",
        figures: figure(caption.into(), lines)
            .filter(|_| run.layers.len() > 1)
            .into_iter()
            .collect(),
        tables,
        ..Section::default()
    }
}

//! The report of a sweep of several runs: its sections, with their tables and figures.

use super::document::{Look, Page, Row, Section, Table};
use super::figures;
use super::format::{number, shown, spaced, with_deviation};
use super::group::{Group, Labels, patterns};
use super::means::{Best, by_pattern, rows};
use super::stat::Stat;
use super::sweep::{Run, Sweep, on};
use sparsellm_eval::TaskReport;

/// The report of a sweep of several runs.
pub fn page(sweep: &Sweep) -> Page {
    let labels = Labels::of(sweep);
    let sections = [
        best(sweep, &labels),
        perplexity(sweep, &labels),
        tasks(sweep, &labels),
        figures::ffn_error(sweep, &labels),
        figures::penalties(sweep, &labels),
        figures::calibration(sweep, &labels),
        costs(sweep, &labels),
    ];
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    Page {
        title: sweep.title.clone(),
        lead: format!(
            "{} of {}, by sparsellm {}.",
            count(sweep.runs.len(), "pruned model"),
            count(sweep.models().len(), "dense one"),
            sweep.version
        ),
        sections: sections.into(),
    }
}

/// The best method for each model and pattern.
fn best(sweep: &Sweep, labels: &Labels) -> Section {
    let texts = sweep.texts(None);
    let mut table = Table {
        caption: "Lowest mean perplexity, and what reached it".into(),
        corner: "pattern",
        columns: texts.iter().map(|t| t.to_string()).collect(),
        rows: Vec::new(),
        look: Look::Words,
    };
    for model in sweep.models() {
        let runs = sweep.runs_of(model);
        let groups = labels.groups(&runs, &[]);
        if groups.len() < 2 {
            continue;
        }
        table.rows.push(Row::heading(model.into()));
        for pattern in patterns(&runs) {
            let winner = |text: &&str| {
                let stat = |g: &Group| g.stat(pattern, |r| on(&r.perplexity, text));
                let means = groups.iter().filter_map(|g| Some((stat(g)?.mean, &g.label)));
                let best = means.min_by(|a, b| a.0.total_cmp(&b.0));
                shown(best, |(mean, label)| format!("{} by {label}", number(mean)))
            };
            table.rows.push(Row::new(spaced(pattern), texts.iter().map(winner)));
        }
    }
    let tables = if table.rows.is_empty() || texts.is_empty() { Vec::new() } else { vec![table] };
    Section { title: "Best", tables, ..Section::default() }
}

fn perplexity(sweep: &Sweep, labels: &Labels) -> Section {
    let mut section = Section { title: "Perplexity", ..Section::default() };
    let all: Vec<&Run> = sweep.runs.iter().collect();
    let styles: Vec<String> = labels.groups(&all, &[]).into_iter().map(|g| g.label).collect();
    for model in sweep.models() {
        let runs = sweep.runs_of(model);
        let groups = labels.groups(&runs, &[]);
        for text in sweep.texts(Some(model)) {
            let dense = sweep.dense(model).and_then(|d| on(&d.perplexity, text));
            let mut tables = by_pattern(
                format!("{model} on {text}{}", windows(sweep, model, text)),
                &groups,
                |r| on(&r.perplexity, text),
                with_deviation,
                Best::Lowest,
            );
            if let (Some(dense), Some(table)) = (dense, tables.first_mut()) {
                let cells = table.columns.iter().map(|_| number(dense));
                table.rows.insert(0, Row::new("dense", cells));
            }
            section.tables.append(&mut tables);
            section.figures.extend(figures::sparsity(model, text, dense, &groups, &styles));
        }
    }
    section.note =
        format!("Lower is better; the best of each column is bold.{}", seeds(sweep, labels));
    section
}

/// The size of the text, such as `, 40 windows of 512 tokens`, if it is the same for all runs.
fn windows(sweep: &Sweep, model: &str, text: &str) -> String {
    let dense = sweep.dense.iter().filter(|d| d.model == model).flat_map(|d| &d.perplexity);
    let runs = sweep.runs.iter().filter(|r| r.model == model).flat_map(|r| &r.perplexity);
    let all: Vec<_> =
        dense.chain(runs).filter(|m| m.data == text).map(|m| (m.windows, m.seq_len)).collect();
    match all.first() {
        Some(first) if all.iter().all(|w| w == first) => {
            format!(", {} windows of {} tokens", first.0, first.1)
        }
        _ => String::new(),
    }
}

/// A sentence that says how often runs were repeated, if any were.
fn seeds(sweep: &Sweep, labels: &Labels) -> String {
    let mut most = 1;
    for model in sweep.models() {
        let runs = sweep.runs_of(model);
        for group in labels.groups(&runs, &[]) {
            for pattern in patterns(&group.runs) {
                most = most.max(group.runs.iter().filter(|r| r.pattern == pattern).count());
            }
        }
    }
    match most {
        1 => String::new(),
        n => format!(" Mean ± standard deviation of up to {n} seeds."),
    }
}

fn tasks(sweep: &Sweep, labels: &Labels) -> Section {
    let mut section = Section {
        title: "Zero-shot tasks",
        note: format!(
            "In percent, higher is better; the best of each pattern is bold.{}",
            seeds(sweep, labels)
        ),
        ..Section::default()
    };
    for model in sweep.models() {
        let mut add = |kind, figure| {
            section.tables.extend(task_table(sweep, labels, model, kind, figure));
        };
        add("accuracy", |t| Some(t.acc));
        add("accuracy by likelihood per length", |t| t.acc_norm);
    }
    section
}

fn task_table(
    sweep: &Sweep,
    labels: &Labels,
    model: &str,
    kind: &str,
    figure: fn(&TaskReport) -> Option<f64>,
) -> Option<Table> {
    let runs = sweep.runs_of(model);
    let dense = sweep.dense(model).map_or(&[][..], |d| &d.tasks);
    let reports = || dense.iter().chain(runs.iter().flat_map(|r| &r.tasks));
    let mut tasks = sweep.tasks(Some(model));
    tasks.retain(|name| reports().any(|t| t.task == *name && figure(t).is_some()));
    if tasks.is_empty() || runs.iter().all(|r| r.tasks.is_empty()) {
        return None;
    }
    // One seed's figures: one for each task, and last their mean over the tasks.
    let values = |reports: &[TaskReport]| -> Vec<Option<f64>> {
        let of = |name: &&str| reports.iter().find(|t| t.task == *name).and_then(figure);
        let values: Vec<Option<f64>> = tasks.iter().map(of).collect();
        let sum: Option<f64> = values.iter().copied().sum();
        values.iter().copied().chain([sum.map(|s| s / tasks.len() as f64)]).collect()
    };
    let stats = |seeds: Vec<Vec<Option<f64>>>| -> Vec<Option<Stat>> {
        (0..=tasks.len()).map(|c| Stat::of(seeds.iter().filter_map(|s| s[c]))).collect()
    };
    let write: fn(&Stat) -> String = |s| match s.deviation {
        Some(d) => format!("{:.1} ± {:.1}", 100.0 * s.mean, 100.0 * d),
        None => format!("{:.1}", 100.0 * s.mean),
    };
    let mut table = Vec::new();
    if !dense.is_empty() {
        table = rows(vec![("dense".into(), stats(vec![values(dense)]))], write, Best::Neither);
    }
    for pattern in patterns(&runs) {
        let measured = runs.iter().filter(|r| r.pattern == pattern && !r.tasks.is_empty());
        let measured: Vec<&Run> = measured.copied().collect();
        let groups = labels.groups(&measured, &[]).into_iter();
        let means =
            groups.map(|g| (g.label, stats(g.runs.iter().map(|r| values(&r.tasks)).collect())));
        if !measured.is_empty() {
            table.push(Row::heading(spaced(pattern)));
            table.extend(rows(means.collect(), write, Best::Highest));
        }
    }
    let items = |name: &&str| reports().find(|t| t.task == *name).map_or(0, |t| t.items);
    let columns = tasks.iter().map(|t| format!("{t} ({})", items(t)));
    Some(Table {
        caption: format!("{model}, {kind} (number of questions)"),
        corner: "method",
        columns: columns.chain(["mean".into()]).collect(),
        rows: table,
        look: Look::Numbers,
    })
}

/// The section on time and memory.
fn costs(sweep: &Sweep, labels: &Labels) -> Section {
    let mut tables = Vec::new();
    for model in sweep.models() {
        let groups = labels.groups(&sweep.runs_of(model), &[]);
        tables.extend(by_pattern(
            format!("{model}, seconds"),
            &groups,
            |r| r.seconds,
            |s| number(s.mean),
            Best::Neither,
        ));
        tables.extend(by_pattern(
            format!("{model}, peak memory in MB"),
            &groups,
            |r| r.peak_rss_bytes.map(|bytes| bytes as f64 / 1e6),
            |s| format!("{:.0}", s.mean),
            Best::Neither,
        ));
    }
    Section {
        title: "Time and memory",
        note: "Of the pruning alone, mean over seeds. They depend on the machine and on what else it did.".into(),
        tables,
        figures: Vec::new(),
    }
}

//! Renders `results.csv`, with one row for each dense model and each run.

use super::sweep::{Measured, Sweep, distinct, mean_kept_error, on};
use sparsellm_eval::TaskReport;

/// Renders a sweep as CSV, with a row for each dense model and for each run.
///
/// The columns are the run's settings and the figures of the pruned model. Time and memory are
/// left out, so that an interrupted and resumed sweep gives the same bytes.
pub fn csv(sweep: &Sweep) -> String {
    let settings = {
        let mut names = distinct(sweep.runs.iter().flat_map(|r| r.settings.keys()));
        names.sort();
        names
    };
    let (texts, tasks) = (sweep.texts(None), sweep.tasks(None));
    let mut head: Vec<String> = ["model", "method", "pattern", "sparsity"].map(String::from).into();
    head.extend(settings.iter().map(|name| name.to_string()));
    head.extend(texts.iter().map(|text| format!("perplexity {text}")));
    for task in &tasks {
        head.extend([format!("acc {task}"), format!("acc_norm {task}")]);
    }
    head.push("ffn_error".into());

    let measured = |perplexity: &[Measured], reports: &[TaskReport]| {
        let mut row: Vec<String> = texts.iter().map(|t| cell(on(perplexity, t))).collect();
        for task in &tasks {
            let report = reports.iter().find(|r| r.task == *task);
            row.push(cell(report.map(|r| r.acc)));
            row.push(cell(report.and_then(|r| r.acc_norm)));
        }
        row
    };
    let mut rows = vec![head];
    for dense in &sweep.dense {
        let mut row = vec![dense.model.clone(), "dense".into(), String::new(), "0".into()];
        row.extend(settings.iter().map(|_| String::new()));
        row.extend(measured(&dense.perplexity, &dense.tasks));
        row.push(String::new());
        rows.push(row);
    }
    for run in &sweep.runs {
        let mut row = vec![run.model.clone(), run.method.clone(), run.pattern.clone()];
        row.push(cell(Some(run.sparsity)));
        row.extend(settings.iter().map(|s| run.settings.get(*s).cloned().unwrap_or_default()));
        row.extend(measured(&run.perplexity, &run.tasks));
        row.push(cell(mean_kept_error(run)));
        rows.push(row);
    }
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    // Writing to memory fails only if rows differ in length, and these have one length.
    let written = rows.iter().try_for_each(|row| writer.write_record(row));
    debug_assert!(written.is_ok());
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// A number with all of its digits, so that nothing is lost; `inf` if it is not finite, and
/// nothing if there is none.
fn cell(value: Option<f64>) -> String {
    match value {
        Some(v) if v.is_finite() => v.to_string(),
        Some(_) => "inf".into(),
        None => String::new(),
    }
}

//! Carries out the runs of a sweep, one after another.

use super::{
    folder::Folder,
    recipe::{Cell, Recipe},
    subject::Subject,
};
use crate::context::{Context, print, print_json};
use crate::{args, progress, prune};
use sparsellm::{Error, Model, Result};
use sparsellm_prune::validate;
use sparsellm_report::{Run, Sweep};

pub fn run(args: &args::Sweep, context: &Context) -> Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    let cells = recipe.cells()?;
    let models = open(&cells, context)?;
    let folder = Folder::open(&args.output)?;
    let version = env!("CARGO_PKG_VERSION").into();
    let mut sweep = Sweep { title: recipe.title, version, dense: Vec::new(), runs: Vec::new() };
    let (mut failures, mut skipped, mut number) = (Vec::new(), 0, 0);
    for (model, of_model) in models {
        // Everything that depends only on the model is prepared once for all of its runs.
        let mut subject = Subject::new(model, &recipe.evaluate, context)?;
        let (mut dense, _) = folder.recall(&subject.digest, || subject.dense())?;
        dense.model = of_model[0].model.clone();
        sweep.dense.push(dense);
        for cell in of_model {
            number += 1;
            let place = format!("[{number}/{}] {}", cells.len(), cell.name);
            match subject.run(cell, &folder, context) {
                Ok((run, done_before)) => {
                    skipped += usize::from(done_before);
                    eprintln!("{place}: {}", outcome(&run, done_before));
                    sweep.runs.push(run);
                    if !done_before {
                        folder.report(&sweep)?;
                    }
                }
                Err(e) => {
                    eprintln!("{place}: {e}");
                    failures.push(cell.name.clone());
                }
            }
        }
    }
    folder.report(&sweep)?;
    if args.json {
        print_json(&sweep)?;
    } else {
        let (all, path) = (sweep.runs.len(), folder.path().join("report.html"));
        print(&format!("{all} runs ({skipped} done before): {}\n", path.display()))?;
    }
    match failures.as_slice() {
        [] => Ok(()),
        failed => Err(Error::Input(format!(
            "{} of {} runs failed: {}; run the same command again to try only them",
            failed.len(),
            cells.len(),
            failed.join("; ")
        ))),
    }
}

/// Opens every model and pairs it with its runs. Checks the settings of all runs, so that a
/// mistake in the last line of a recipe shows at once and not after hours of work.
fn open<'a>(cells: &'a [Cell], context: &Context) -> Result<Vec<(Model, &'a [Cell])>> {
    let of_one_model = cells.chunk_by(|a, b| a.args.model == b.args.model);
    of_one_model
        .map(|cells| {
            let model = progress::open(&cells[0].args.model, context)?;
            for cell in cells {
                let checked = prune::pruner(&cell.args, &model, context)
                    .and_then(|pruner| pruner.resolve())
                    .and_then(|settings| validate(&settings, cell.args.method()?, &model));
                checked.map_err(|e| Error::Usage(format!("{}: {e}", cell.name)))?;
            }
            Ok((model, cells))
        })
        .collect()
}

/// The outcome of a run, in one line.
fn outcome(run: &Run, done_before: bool) -> String {
    let perplexities = run.perplexity.iter().map(|m| format!("{} {:.4}", m.data, m.perplexity));
    let tasks = run.tasks.iter().map(|t| format!("{} {:.4}", t.task, t.acc));
    let measured: Vec<String> = perplexities.chain(tasks).collect();
    let seconds = match run.seconds {
        Some(_) if done_before => "done before".into(),
        seconds => format!("{:.1} s", seconds.unwrap_or(0.0)),
    };
    format!("{seconds}, {}", measured.join(", "))
}

//! `sparsellm sweep`: a grid of models, methods and settings, pruned and
//! measured, with a report.

mod recipe;

use crate::{Context, args, args::label, eval, json_text, print, print_json, prune};
pub use recipe::Recipe;
use recipe::{Cell, Evaluate};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest, Sha256};
use sparsellm::{
    Error, Event, Model, Result, Writer,
    checkpoint::{Existing, PARTIAL},
    eval::tasks::{Item, Task},
    perplexity,
    pipeline::{self, Calibration},
    ranks::Local,
    report::{self, Dense, Measured, Run, Sweep, TaskReport},
    text::Segments,
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

/// What a sweep's folder holds of finished work, one file a run.
const DONE: &str = "runs";

pub fn run(args: &args::Sweep, context: &Context) -> Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    let cells = recipe.cells()?;
    let models = open(&cells, context)?;
    let folder = Folder::open(&args.output)?;
    let version = env!("CARGO_PKG_VERSION").into();
    let mut sweep = Sweep { title: recipe.title, version, dense: Vec::new(), runs: Vec::new() };
    let (mut failures, mut skipped, mut number) = (Vec::new(), 0, 0);
    for (model, of_model) in models {
        // What a model alone decides is made once for all its runs.
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
        let (all, path) = (sweep.runs.len(), folder.0.join("report.html"));
        print(&format!("{all} runs ({skipped} done before): {}\n", path.display()))?;
    }
    match failures.as_slice() {
        [] => Ok(()),
        failed => Err(Error::Invalid(format!(
            "{} of {} runs failed: {}; run the same command again to try only them",
            failed.len(),
            cells.len(),
            failed.join("; ")
        ))),
    }
}

/// Opens every model, with its runs, and looks at every run's settings, so that
/// a mistake in the last line of a recipe does not show after a night.
fn open<'a>(cells: &'a [Cell], context: &Context) -> Result<Vec<(Model, &'a [Cell])>> {
    let of_one_model = cells.chunk_by(|a, b| a.args.model == b.args.model);
    of_one_model
        .map(|cells| {
            let model = args::open(&cells[0].args.model, context)?;
            for cell in cells {
                let checked = prune::settings(&cell.args).check(&model);
                checked.map_err(|e| Error::Usage(format!("{}: {e}", cell.name)))?;
            }
            Ok((model, cells))
        })
        .collect()
}

/// A run in a line.
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

/// A model with what it is measured on and calibrated by.
struct Subject {
    model: Model,
    texts: Vec<(String, Segments)>,
    questions: Vec<(Task, Vec<Item>)>,
    /// Of everything that decides the dense model's figures.
    digest: String,
    /// By the options that decide them.
    calibrations: HashMap<String, Rc<Calibration>>,
}

impl Subject {
    fn new(model: Model, evaluate: &Evaluate, context: &Context) -> Result<Subject> {
        let (data, seq_len) = (&evaluate.data, evaluate.seq_len);
        let texts = match data.as_slice() {
            [] => Vec::new(),
            _ => eval::texts(&model, data, seq_len, evaluate.max_windows, context)?,
        };
        let texts: Vec<_> = texts.into_iter().map(|(data, w)| (label(data), w)).collect();
        let asked = |task: &String| task.parse().map_err(Error::Usage);
        let tasks = evaluate.tasks.iter().map(asked).collect::<Result<Vec<args::AskedTask>>>()?;
        let folder = evaluate.task_data.as_deref().map(Path::new);
        let questions = eval::questions(&tasks, folder, evaluate.limit, context)?;
        let digest = digest(&(
            env!("CARGO_PKG_VERSION"),
            model.checkpoint.digest()?,
            texts.iter().map(|(_, windows)| windows).collect::<Vec<_>>(),
            &questions,
        ));
        Ok(Subject { model, texts, questions, digest, calibrations: HashMap::new() })
    }

    /// The dense model's figures, by a name that the recipe gives.
    fn dense(&self) -> Result<Dense> {
        let (perplexity, tasks) = self.measure(&self.model)?;
        Ok(Dense { model: String::new(), perplexity, tasks })
    }

    fn measure(&self, model: &Model) -> Result<(Vec<Measured>, Vec<TaskReport>)> {
        let texts = self.texts.iter().map(|(data, windows)| {
            let perplexity = perplexity(model, windows, &Local, |_, _| Ok(()))?.perplexity;
            let (windows, seq_len) = (windows.count(), windows.seq_len);
            Ok(Measured { data: data.clone(), perplexity, windows, seq_len })
        });
        let tasks =
            eval::ask(model, &self.questions, &Local)?.into_iter().map(|(report, _)| report);
        Ok((texts.collect::<Result<_>>()?, tasks.collect()))
    }

    /// One run, and whether it had been done before.
    fn run(&mut self, cell: &Cell, folder: &Folder, context: &Context) -> Result<(Run, bool)> {
        let settings = prune::settings(&cell.args);
        let calibration = self.calibration(cell, &settings, context)?;
        let segments = calibration.as_ref().map(|c| &c.segments);
        let digest = digest(&(&self.digest, format!("{settings:?}"), segments));
        let (mut run, done_before) = folder.recall(&digest, || {
            forget_peak_rss();
            let started = Instant::now();
            let temp = folder.temporary()?;
            let output = temp.path().join(&digest);
            let (nothing, existing) = (json!({}), Existing::default());
            let mut writer =
                Writer::create(&self.model.checkpoint, &output, &nothing, existing, &Local)?;
            let mut warn = |event: Event| {
                if let Event::Warning(text) = event {
                    eprintln!("warning: {text}");
                }
                Ok(())
            };
            let calibration = calibration.as_deref();
            let layers = pipeline::prune(
                &self.model,
                calibration,
                &settings,
                cell.args.memory,
                &mut writer,
                &Local,
                &mut warn,
            )?;
            let finished = writer.finish(&nothing)?;
            let (seconds, peak) = (started.elapsed().as_secs_f64(), prune::peak_rss_bytes());
            let (perplexity, tasks) = self.measure(&Model::open(finished.folder())?)?;
            Ok(Run {
                model: String::new(),
                method: String::new(),
                pattern: String::new(),
                settings: Default::default(),
                sparsity: prune::overall_sparsity(&self.model, &layers),
                seconds: Some(seconds),
                peak_rss_bytes: Some(peak).filter(|peak| *peak > 0),
                perplexity,
                tasks,
                layers,
            })
        })?;
        // The recipe's words, which may have changed since.
        run.model = cell.model.clone();
        run.method = settings.method.name().into();
        run.pattern = settings.pattern.to_string();
        run.settings = cell.settings.clone();
        Ok((run, done_before))
    }

    /// The run's calibration segments, drawn once for all runs that share them.
    fn calibration(
        &mut self,
        cell: &Cell,
        settings: &sparsellm::Settings,
        context: &Context,
    ) -> Result<Option<Rc<Calibration>>> {
        let args = &cell.args;
        let key = format!("{:?}", (&args.calibration, args.samples, args.seq_len, args.seed));
        if let Some(calibration) = self.calibrations.get(&key).filter(|_| settings.needs_text()) {
            return Ok(Some(calibration.clone()));
        }
        let segments = prune::calibration(args, settings, &self.model, context)?;
        Ok(segments.map(|segments| {
            let calibration = Rc::new(Calibration::new(segments));
            self.calibrations.insert(key, calibration.clone());
            calibration
        }))
    }
}

/// A sweep's output folder.
struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, or goes on in one that a sweep has made.
    fn open(path: &Path) -> Result<Folder> {
        let fail = |e| Error::io(path, e);
        let known = path.join(DONE);
        if !known.is_dir() {
            if path.exists() && fs::read_dir(path).map_err(fail)?.next().is_some() {
                return Err(Error::Invalid(format!(
                    "{}: the folder holds something else than a sweep; choose another --output",
                    path.display()
                )));
            }
            fs::create_dir_all(&known).map_err(fail)?;
        }
        // What a sweep that was killed left behind.
        for folder in [path, &known] {
            let fail = |e| Error::io(folder, e);
            for entry in fs::read_dir(folder).map_err(fail)? {
                let entry = entry.map_err(fail)?.path();
                let name = entry.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(PARTIAL) {
                    let removed = match entry.is_dir() {
                        true => fs::remove_dir_all(&entry),
                        false => fs::remove_file(&entry),
                    };
                    removed.map_err(|e| Error::io(&entry, e))?;
                }
            }
        }
        Ok(Folder(path.into()))
    }

    /// A folder for a pruned checkpoint that only has to be measured.
    fn temporary(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(&self.0);
        made.map_err(|e| Error::io(&self.0, e))
    }

    /// What was found out before under this digest, or is now; and which.
    fn recall<T: Serialize + DeserializeOwned>(
        &self,
        digest: &str,
        find_out: impl FnOnce() -> Result<T>,
    ) -> Result<(T, bool)> {
        let path = self.0.join(DONE).join(format!("{digest}.json"));
        if let Ok(text) = fs::read_to_string(&path) {
            match serde_json::from_str(&text) {
                Ok(found) => return Ok((found, true)),
                Err(e) => eprintln!("warning: {}: {e}; done again", path.display()),
            }
        }
        let found = find_out()?;
        report::write(&path, &json_text(&found)?)?;
        Ok((found, false))
    }

    /// Writes what is known so far.
    fn report(&self, sweep: &Sweep) -> Result<()> {
        for (name, text) in [
            ("results.csv", report::csv(sweep)),
            ("results.json", json_text(sweep)?),
            ("report.md", report::markdown(sweep)),
            ("report.html", report::html(sweep)),
        ] {
            report::write(&self.0.join(name), &text)?;
        }
        Ok(())
    }
}

/// A short name for everything that decides a result.
fn digest(of: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(of).unwrap_or_default();
    Sha256::digest(bytes).iter().take(12).map(|b| format!("{b:02x}")).collect()
}

/// Has the system measure the largest resident memory anew, where it can.
fn forget_peak_rss() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

//! A model of a sweep, and the work that its runs share.

use super::{
    folder::Folder,
    recipe::{Cell, Evaluate},
};
use crate::context::Context;
use crate::{args, eval, fields::as_flags, prune};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sparsellm::{
    Calibration, Event, Model, Observer, Pattern, Result, Settings, label, peak_rss_bytes,
};
use sparsellm_base::Error;
use sparsellm_eval::{
    TaskReport, perplexity,
    tasks::{Item, Task},
};
use sparsellm_ranks::Local;
use sparsellm_report::{Dense, Measured, Run};
use sparsellm_text::Segments;
use std::{collections::HashMap, fs, path::Path, rc::Rc, time::Instant};

/// A model with the texts and questions that it is measured on and the calibrations that its
/// runs share.
pub struct Subject {
    model: Model,
    texts: Vec<(String, Segments)>,
    questions: Vec<(Task, Vec<Item>)>,
    /// A digest of everything that determines the dense model's figures.
    pub digest: String,
    /// The calibrations drawn so far, by the options that determine them.
    calibrations: HashMap<String, Rc<Calibration>>,
}

impl Subject {
    /// Reads the texts and questions that `model` is to be measured on.
    pub fn new(model: Model, evaluate: &Evaluate, context: &Context) -> Result<Subject> {
        let asked = eval::Asked {
            data: &evaluate.data,
            text_field: evaluate.text_field.as_deref(),
            seq_len: evaluate.seq_len,
            max_windows: evaluate.max_windows,
        };
        let texts = match evaluate.data.as_slice() {
            [] => Vec::new(),
            _ => eval::texts(&model, asked, context)?,
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

    /// Measures the dense model. The caller fills in the name that the recipe gives it.
    pub fn dense(&self) -> Result<Dense> {
        let (perplexity, tasks) = self.measure(&self.model)?;
        Ok(Dense { model: String::new(), perplexity, tasks })
    }

    fn measure(&self, model: &Model) -> Result<(Vec<Measured>, Vec<TaskReport>)> {
        let texts = self.texts.iter().map(|(data, windows)| {
            let silent = &mut Observer::silent();
            let perplexity = perplexity(model, windows, data, &Local, silent)?.perplexity;
            let (windows, seq_len) = (windows.count(), windows.seq_len);
            Ok(Measured { data: data.clone(), perplexity, windows, seq_len })
        });
        let tasks =
            eval::ask(model, &self.questions, &Local)?.into_iter().map(|(report, _)| report);
        Ok((texts.collect::<Result<_>>()?, tasks.collect()))
    }

    /// Carries out one run, unless its result is in the folder. The flag is true if it was.
    pub fn run(&mut self, cell: &Cell, folder: &Folder, context: &Context) -> Result<(Run, bool)> {
        let calibration = self.calibration(cell, context)?;
        let pruner = prune::pruner(&cell.args, &self.model, context)?;
        let settings = pruner.resolve()?;
        let segments = calibration.as_ref().map(|c| &c.segments);
        let digest = digest(&(&self.digest, identity(&settings), segments));
        let (mut run, done_before) = folder.recall(&digest, || {
            forget_peak_rss();
            let started = Instant::now();
            let temp = folder.temporary()?;
            let output = temp.path().join(&digest);
            let pruner = pruner.shared_calibration(calibration.as_deref());
            let report = pruner.observer(warnings()).write(&output)?;
            let (seconds, peak) = (started.elapsed().as_secs_f64(), peak_rss_bytes());
            let (perplexity, tasks) = self.measure(&Model::open(&output)?)?;
            Ok(Run {
                model: String::new(),
                method: String::new(),
                pattern: String::new(),
                settings: Default::default(),
                sparsity: report.sparsity,
                seconds: Some(seconds),
                peak_rss_bytes: Some(peak).filter(|peak| *peak > 0),
                perplexity,
                tasks,
                layers: report.layers,
                tune: report.tune,
            })
        })?;
        // A stored result gets the recipe's present names, which may have changed since.
        run.model = cell.model.clone();
        run.method = settings.method.clone();
        run.pattern = settings.pattern.to_string();
        run.settings = cell.settings.clone();
        Ok((run, done_before))
    }

    /// The run's calibration segments, drawn once for all runs that share them; `None` if the
    /// method needs no calibration.
    fn calibration(&mut self, cell: &Cell, context: &Context) -> Result<Option<Rc<Calibration>>> {
        let args = &cell.args;
        let mut pruner = prune::pruner(args, &self.model, context)?.observer(warnings());
        if !pruner.needs_text()? {
            return Ok(None);
        }
        let text = (&args.calibration, &args.text_field);
        let tuned = pruner.segments_for_tuning()?;
        let key = format!("{:?}", (text, args.samples, tuned, args.seq_len, args.seed));
        if let Some(calibration) = self.calibrations.get(&key) {
            return Ok(Some(calibration.clone()));
        }
        let drawn = pruner.draw_calibration()?.map(Rc::new);
        drop(pruner);
        if let Some(calibration) = &drawn {
            self.calibrations.insert(key, calibration.clone());
        }
        Ok(drawn)
    }
}

/// An observer that prints warnings, and nothing else.
fn warnings() -> Observer<'static> {
    Observer::new(|event| {
        if let Event::Warning(text) = event {
            eprintln!("warning: {}", as_flags(&text));
        }
        Ok(())
    })
}

/// The part of a result's identity that the settings determine: all settings, and the sparsity
/// with all of its digits.
fn identity(settings: &Settings) -> (serde_json::Value, String) {
    let exact = match settings.pattern {
        Pattern::Unstructured(rho) => rho.to_string(),
        pattern => pattern.to_string(),
    };
    (settings.to_json(), exact)
}

/// A short digest of everything that determines a result, used as its name.
fn digest(of: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(of).unwrap_or_default();
    Sha256::digest(bytes).iter().take(12).map(|b| format!("{b:02x}")).collect()
}

/// Resets the system's record of the largest resident memory, so that the next run is measured
/// on its own. Systems that cannot do this ignore it.
fn forget_peak_rss() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

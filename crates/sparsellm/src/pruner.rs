//! The front door: sets up a run step by step, and carries it out.

use crate::{
    evaluator::Evaluator,
    inputs::{Draw, hub_or_environments, open_model},
    run_record::{finished_before, identity, overall_sparsity, page, peak_rss_bytes, record},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use sparsellm_base::{Error, Event, Observer, Result, usage_error};
use sparsellm_checkpoint::{Existing, REPORT};
use sparsellm_data::Hub;
use sparsellm_eval::perplexity;
use sparsellm_model::Model;
use sparsellm_prune::{
    Calibration, LayerReport, Method, Output, Plan, Settings, methods::SparseLlmPlus, needs_text,
    prune_model, tune::TuneReport, tune_pruned, validate,
};
use sparsellm_ranks::{Communicator, Local};
use sparsellm_report::{PerplexityReport, PruneReport};
use sparsellm_tensor::profile::{Ledger, Phase, phase};
use sparsellm_text::Segments;
use std::{
    cell::{Cell, OnceCell},
    ops::Range,
    path::Path,
    time::Instant,
};

/// A record of where a run's time went. It covers pruning and writing, but not evaluation.
#[derive(Default)]
pub struct Profile {
    /// The time and work of each phase.
    pub ledger: Ledger,
    /// The wall-clock time that the ledger covers, in seconds.
    pub seconds: Cell<f64>,
}

/// The model of a run: its name, or a model that is already open.
enum Subject<'a> {
    Named(String),
    Open(&'a Model),
}

/// Prunes a model and writes the pruned checkpoint.
///
/// See the [crate's](crate) front page for an example. Every setting that is not asked for has the
/// method's default. The method is `sparsellm-plus` unless another is given.
pub struct Pruner<'a> {
    model: Subject<'a>,
    name: Option<String>,
    method: &'a dyn Method,
    asked: Map<String, Value>,
    draw: Draw,
    shared: Option<&'a Calibration>,
    evaluate: Vec<String>,
    max_windows: Option<usize>,
    memory: Option<usize>,
    existing: Existing,
    hub: Option<&'a Hub>,
    ranks: &'a dyn Communicator,
    observer: Observer<'a>,
    profile: Option<&'a Profile>,
}

impl<'a> Pruner<'a> {
    /// A run on the model at this path, or with this id on the hub.
    pub fn new(model: impl Into<String>) -> Self {
        Pruner::of(Subject::Named(model.into()))
    }

    /// A run on a model that is already open.
    pub fn for_model(model: &'a Model) -> Self {
        Pruner::of(Subject::Open(model))
    }

    fn of(model: Subject<'a>) -> Self {
        Pruner {
            model,
            name: None,
            method: &SparseLlmPlus,
            asked: Map::new(),
            draw: Draw::default(),
            shared: None,
            evaluate: Vec::new(),
            max_windows: None,
            memory: None,
            existing: Existing::default(),
            hub: None,
            ranks: &Local,
            observer: Observer::silent(),
            profile: None,
        }
    }

    /// Sets the name that the report gives the model.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the method: one of [`methods`](crate::methods), or your own.
    pub fn method(mut self, method: &'a dyn Method) -> Self {
        self.method = method;
        self
    }

    /// Sets the fraction of weights to remove, in [0, 1); by default 0.7.
    pub fn sparsity(self, sparsity: f64) -> Self {
        self.set("sparsity", sparsity)
    }

    /// Removes N of every M consecutive weights, given as in `"2:4"`.
    pub fn pattern(self, pattern: impl Into<String>) -> Self {
        self.set("pattern", pattern.into())
    }

    /// Sets the decoder layers to prune; by default all.
    pub fn layers(self, layers: Range<usize>) -> Self {
        self.set("layers", format!("{}..{}", layers.start, layers.end))
    }

    /// Sets any of the [settings](Settings), by the name of its field.
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.asked.insert(field.into(), value.into());
        self
    }

    /// Sets several settings at once, by the names of their fields.
    pub fn settings(mut self, asked: Map<String, Value>) -> Self {
        self.asked.extend(asked);
        self
    }

    /// Sets the calibration text: `wikitext2`, `ptb` or `c4` from the hub, or a file.
    pub fn calibration(mut self, text: impl Into<String>) -> Self {
        self.draw.text = Some(text.into());
        self
    }

    /// Sets the field of a file's rows that holds their text, for calibration and evaluation, as for
    /// [`Source::text_field`].
    ///
    /// [`Source::text_field`]: sparsellm_data::Source::text_field
    pub fn text_field(mut self, name: impl Into<Option<String>>) -> Self {
        self.draw.text_field = name.into();
        self
    }

    /// Uses a calibration that several runs share, if there is one, instead of a text.
    pub fn shared_calibration(mut self, calibration: impl Into<Option<&'a Calibration>>) -> Self {
        self.shared = calibration.into();
        self
    }

    /// Sets how many calibration segments are drawn; by default 128.
    pub fn samples(mut self, samples: usize) -> Self {
        self.draw.samples = samples;
        self
    }

    /// Sets the number of tokens per segment, for calibration and evaluation; by default 2048 or as
    /// many as the model has positions, whichever is fewer.
    pub fn seq_len(mut self, seq_len: impl Into<Option<usize>>) -> Self {
        self.draw.seq_len = seq_len.into();
        self
    }

    /// Sets the seed that the calibration segments are drawn with; by default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.draw.seed = seed;
        self
    }

    /// Measures the perplexity on these texts before and after pruning, on the first `max_windows`
    /// windows of each or, for `None`, on all.
    pub fn evaluate_on(mut self, texts: Vec<String>, max_windows: Option<usize>) -> Self {
        (self.evaluate, self.max_windows) = (texts, max_windows);
        self
    }

    /// Limits the run to this many bytes of memory. If SparseLLM's z and s and Adam's moments do
    /// not fit, they go to temporary files.
    pub fn memory(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.memory = bytes.into();
        self
    }

    /// Says what to do with an earlier result or an unfinished run at the output's path; by
    /// default, the run refuses to touch either.
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }

    /// Sets the hub that models and texts come from; by default, the one that the environment
    /// describes.
    pub fn hub(mut self, hub: &'a Hub) -> Self {
        self.hub = Some(hub);
        self
    }

    /// Sets the ranks that the run is spread over; by default, this process alone.
    pub fn ranks(mut self, ranks: &'a dyn Communicator) -> Self {
        self.ranks = ranks;
        self
    }

    /// Sets the observer that receives progress events. Its error ends the run.
    pub fn observer(mut self, observer: Observer<'a>) -> Self {
        self.observer = observer;
        self
    }

    /// Records in `profile` how long each phase takes.
    pub fn profile(mut self, profile: impl Into<Option<&'a Profile>>) -> Self {
        self.profile = profile.into();
        self
    }

    /// The settings of the run: the method's defaults, replaced by what was asked for.
    ///
    /// # Errors
    /// If something was asked for that is not a setting, or is not a value of its setting.
    pub fn resolve(&self) -> Result<Settings> {
        let settings = self.method.defaults().overlay(&self.asked)?;
        Ok(Settings { method: self.method.name().into(), ..settings })
    }

    /// Whether the run needs calibration text.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    pub fn needs_text(&self) -> Result<bool> {
        Ok(needs_text(self.method, &self.resolve()?))
    }

    /// The number of segments that are drawn beside the calibration's, for tuning the whole model. Runs that share a calibration must agree on it.
    ///
    /// # Errors
    /// If a setting does not exist or has the wrong type.
    pub fn segments_for_tuning(&self) -> Result<usize> {
        Ok(self.more(&self.resolve()?))
    }

    /// Draws the run's calibration segments, for several runs to share; `None` if the method needs
    /// no calibration, or this run has a shared one. The model must be open.
    ///
    /// # Errors
    /// If the model is given by name, no text is given, or the text cannot be read or is too short.
    pub fn draw_calibration(&mut self) -> Result<Option<Calibration>> {
        let Subject::Open(model) = self.model else {
            return usage_error!("a calibration that is shared is drawn for an open model");
        };
        let (settings, environment) = (self.resolve()?, OnceCell::new());
        let hub = hub_or_environments(self.hub, &environment);
        self.draw(model, &settings, hub)
    }

    /// Prunes the model and writes the pruned checkpoint to the folder `output`, which appears only
    /// when it is complete.
    ///
    /// # Errors
    /// If the model or a text cannot be read, a setting cannot be honoured, or the output cannot be
    /// written; and the observer's own error.
    pub fn write(mut self, output: &Path) -> Result<PruneReport> {
        let started = Instant::now();
        let environment = OnceCell::new();
        let hub = hub_or_environments(self.hub, &environment);
        let opened;
        let (model, name) = match &self.model {
            Subject::Open(model) => (*model, model.checkpoint.path.display().to_string()),
            Subject::Named(name) => {
                opened = open_model(name, hub, self.ranks, &mut self.observer)?;
                (&opened, name.clone())
            }
        };
        let settings = self.resolve()?;
        validate(&settings, self.method, model)?;
        let drawn = self.draw(model, &settings, hub)?;
        let calibration = drawn.as_ref().or(self.shared);
        let texts = self.texts(model, hub)?;
        let identity = match self.ranks.rank() {
            0 => {
                let needed = calibration.filter(|_| needs_text(self.method, &settings));
                identity(model, &settings, needed.map(|c| &c.segments), &self.draw)?
            }
            _ => Value::Null, // only the first rank uses it
        };
        let (method, memory, ranks) = (self.method, self.memory, self.ranks);
        let plan = Plan { model, method, settings: &settings, calibration, memory, ranks };
        let (existing, profile) = (self.existing, self.profile);
        let name = self.name.unwrap_or(name);
        let job = Job { plan, name, texts, identity, existing, profile, output, started };
        job.run(&mut self.observer)
    }

    /// Draws the calibration segments; `None` if the method needs none, or they are shared.
    fn draw(
        &mut self,
        model: &Model,
        settings: &Settings,
        hub: &Hub,
    ) -> Result<Option<Calibration>> {
        if self.shared.is_some() || !needs_text(self.method, settings) {
            return Ok(None);
        }
        let draw = Draw { more: self.more(settings), ..self.draw.clone() };
        let (purpose, observe) = (self.method.name(), &mut self.observer);
        let (segments, more) = draw.segments(purpose, model, hub, self.ranks, observe)?;
        Ok(Some(Calibration::new(segments).with_more(more)))
    }

    /// The number of segments that are drawn beside the calibration's, for tuning the whole model.
    fn more(&self, settings: &Settings) -> usize {
        match settings.tune.model() {
            true => settings.tuning.more_segments(self.draw.samples),
            false => 0,
        }
    }

    /// Reads the windows of each text that the model is evaluated on. All texts are read before any
    /// is measured, so that a bad one shows at once.
    fn texts(&mut self, model: &Model, hub: &Hub) -> Result<Vec<(String, Segments)>> {
        let mut all = Vec::new();
        for text in &self.evaluate {
            let mut evaluator = Evaluator::new(model)
                .seq_len(self.draw.seq_len)
                .max_windows(self.max_windows)
                .text_field(self.draw.text_field.clone())
                .hub(hub)
                .ranks(self.ranks)
                .observer(Observer::new(|event| Ok(self.observer.notify(event)?)));
            all.push((text.clone(), evaluator.windows(text)?));
        }
        Ok(all)
    }
}

/// One run, with everything that is known before it begins.
struct Job<'a> {
    plan: Plan<'a>,
    name: String,
    texts: Vec<(String, Segments)>,
    /// Everything that determines the result, as [`identity`] gives it.
    identity: Value,
    existing: Existing,
    profile: Option<&'a Profile>,
    output: &'a Path,
    started: Instant,
}

impl Job<'_> {
    /// Prunes the model, measures it, and moves the checkpoint into place. A run that was already
    /// finished is only measured and reported again.
    fn run(&self, observe: &mut Observer) -> Result<PruneReport> {
        let Plan { model, ranks, .. } = self.plan;
        if self.existing.resume {
            let record = finished_before(self.output, &self.identity, ranks)?;
            if !record.is_null() {
                return self.tell_again(&record, observe);
            }
        }
        let (checkpoint, existing) = (&model.checkpoint, self.existing);
        let mut output = Output::create(checkpoint, self.output, &self.identity, existing, ranks)?;
        let evaluation = Instant::now();
        let dense = self.measure(model, observe)?;
        let evaluation = evaluation.elapsed();
        let begun = Instant::now();
        let work = || {
            let layers = prune_model(&self.plan, &mut output, observe)?;
            let tune = tune_pruned(&self.plan, &mut output, observe)?;
            let sparsity = overall_sparsity(model, &layers)?;
            let record = record(&self.identity, sparsity, &layers, tune.as_ref())?;
            let finished = phase(Phase::Write, || output.finish(&record))?;
            Ok::<_, Error>((layers, tune, sparsity, record, finished))
        };
        let (layers, tune, sparsity, record, finished) = match self.profile {
            Some(profile) => profile.ledger.record(work)?,
            None => work()?,
        };
        if let Some(profile) = self.profile {
            profile.seconds.set(begun.elapsed().as_secs_f64());
        }
        let seconds = (self.started.elapsed() - evaluation).as_secs_f64();
        let pruned = self.measure_at(finished.folder(), observe)?;
        let report = self.report((layers, tune), sparsity, seconds, (dense, pruned));
        if ranks.rank() == 0 {
            let html = page(&report, &record);
            sparsellm_report::write(&finished.folder().join(REPORT), &html)?;
        }
        if !finished.left_out().is_empty() {
            observe.notify(Event::LeftOut { paths: finished.left_out() })?;
        }
        finished.publish()?;
        Ok(report)
    }

    /// Measures and reports a run that was already finished, whose output holds this `record`.
    fn tell_again(&self, record: &Value, observe: &mut Observer) -> Result<PruneReport> {
        let output = self.output.display();
        let bad = |e| Error::Input(format!("{output}: not a run's record: {e}"));
        let layers = Vec::<LayerReport>::deserialize(&record["layers"]).map_err(bad)?;
        let tune = Option::<TuneReport>::deserialize(&record["tune"]).map_err(bad)?;
        observe.notify(Event::FinishedBefore)?;
        let dense = self.measure(self.plan.model, observe)?;
        let pruned = self.measure_at(self.output, observe)?;
        let sparsity = overall_sparsity(self.plan.model, &layers)?;
        Ok(self.report((layers, tune), sparsity, 0.0, (dense, pruned)))
    }

    /// The perplexity of `model` on each text.
    fn measure(&self, model: &Model, observe: &mut Observer) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for (text, windows) in &self.texts {
            let ranks = self.plan.ranks;
            all.push(perplexity(model, windows, text, ranks, observe)?.perplexity);
        }
        Ok(all)
    }

    /// The perplexity of the checkpoint in `folder` on each text.
    fn measure_at(&self, folder: &Path, observe: &mut Observer) -> Result<Vec<f64>> {
        match self.texts.is_empty() {
            true => Ok(Vec::new()),
            false => self.measure(&Model::open(folder)?, observe),
        }
    }

    /// The report of the run. `layers` are the pruned decoder layers, `sparsity` is the fraction of
    /// zeros over their linears, and the last argument holds the perplexities of the dense and of
    /// the pruned model on each text.
    fn report(
        &self,
        (layers, tune): (Vec<LayerReport>, Option<TuneReport>),
        sparsity: f64,
        seconds: f64,
        (dense, pruned): (Vec<f64>, Vec<f64>),
    ) -> PruneReport {
        let measured = self.texts.iter().zip(dense.into_iter().zip(pruned));
        let perplexity = measured.map(|((data, windows), (dense, pruned))| PerplexityReport {
            data: data.clone(),
            dense,
            pruned,
            windows: windows.count(),
            seq_len: windows.seq_len,
        });
        let peaks = self.plan.ranks.gather_numbers(peak_rss_bytes() as f64);
        PruneReport {
            model: self.name.clone(),
            output: self.output.display().to_string(),
            method: self.plan.method.name().into(),
            sparsity,
            seconds,
            peak_rss_bytes: peaks.into_iter().fold(0, |most, peak| most.max(peak as u64)),
            perplexity: perplexity.collect(),
            layers,
            tune,
        }
    }
}

//! Tunes a pruned checkpoint against the dense model that it came from.

use crate::{
    inputs::{Draw, hub_or_environments, open_model},
    run_record::{finished_before, peak_rss_bytes},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sparsellm_base::{Event, Observer, Result};
use sparsellm_checkpoint::{Existing, RECORD, read_json};
use sparsellm_data::Hub;
use sparsellm_model::{Block, Model};
use sparsellm_prune::{
    Keep, Output, StateType, layer_sparsity,
    memory::{PROGRAM, within},
    tune::{Sizes, TunePlan, TuneReport, TuneSettings, peak, tune_model},
};
use sparsellm_ranks::{Communicator, Local};
use sparsellm_text::Segments;
use std::{cell::OnceCell, path::Path, time::Instant};

/// Tunes what is kept of a pruned model until it predicts what the dense one does.
///
/// Masks stay fixed: every weight that is zero stays zero. The kept weights, biases and norms
/// move by Adam to minimise the mean over tokens of `KL(p_dense ‖ p_sparse)`. One eighth of the
/// text is held out, and the parameters that are best on it are written.
///
/// ```
/// # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
/// # let temp = tempfile::tempdir()?;
/// # let (pruned, tuned) = (temp.path().join("pruned"), temp.path().join("tuned"));
/// use sparsellm::{Pruner, Tuner, methods::Magnitude};
///
/// let dense = format!("{assets}/tiny-llama");
/// Pruner::new(&dense).method(&Magnitude).write(&pruned)?;
/// let report = Tuner::new(pruned.display().to_string(), &dense)
///     .calibration(format!("{assets}/stories/calibration.txt"))
///     .samples(8)
///     .seq_len(64)
///     .epochs(1)
///     .write(&tuned)?;
/// assert!(report.tune.held_out[1] < report.tune.held_out[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tuner<'a> {
    pruned: String,
    dense: String,
    asked: Map<String, Value>,
    state: StateType,
    memory: Option<usize>,
    draw: Draw,
    existing: Existing,
    hub: Option<&'a Hub>,
    ranks: &'a dyn Communicator,
    observer: Observer<'a>,
}

/// What tuning did and cost.
#[derive(Clone, Debug, Serialize)]
pub struct TunedReport {
    /// The pruned model.
    pub model: String,
    /// The dense model.
    pub dense: String,
    /// The folder that was written.
    pub output: String,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
    /// Peak resident memory, in bytes.
    pub peak_rss_bytes: u64,
    /// The losses.
    pub tune: TuneReport,
}

impl<'a> Tuner<'a> {
    /// Tunes the pruned model at a path or with an id on the hub, against the dense one.
    pub fn new(pruned: impl Into<String>, dense: impl Into<String>) -> Self {
        Tuner {
            pruned: pruned.into(),
            dense: dense.into(),
            asked: Map::new(),
            state: StateType::default(),
            memory: None,
            draw: Draw::default(),
            existing: Existing::default(),
            hub: None,
            ranks: &Local,
            observer: Observer::silent(),
        }
    }

    /// Sets the text: `wikitext2`, `ptb` or `c4` from the hub, or a file.
    pub fn calibration(mut self, text: impl Into<String>) -> Self {
        self.draw.text = Some(text.into());
        self
    }

    /// Sets the field of a file's rows that holds their text.
    pub fn text_field(mut self, name: impl Into<Option<String>>) -> Self {
        self.draw.text_field = name.into();
        self
    }

    /// Sets how many segments are drawn; by default 128.
    pub fn samples(mut self, samples: usize) -> Self {
        self.draw.samples = samples;
        self
    }

    /// Sets the number of tokens per segment; by default 2048 or as many as the model has positions,
    /// whichever is fewer.
    pub fn seq_len(mut self, seq_len: impl Into<Option<usize>>) -> Self {
        self.draw.seq_len = seq_len.into();
        self
    }

    /// Sets the seed of the segments' draw; by default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.draw.seed = seed;
        self
    }

    /// Sets how often tuning goes through the training segments.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.asked.insert("tune_epochs".into(), epochs.into());
        self
    }

    /// Sets the options of tuning that are named, by the names of [`TuneSettings`]' fields; the
    /// others stay as they are.
    pub fn settings(mut self, asked: Map<String, Value>) -> Self {
        self.asked.extend(asked);
        self
    }

    /// Sets the number type in which Adam's moments are kept; by default f32.
    pub fn state(mut self, state: StateType) -> Self {
        self.state = state;
        self
    }

    /// Limits the run to this many bytes of memory. If Adam's moments do not fit, they go to
    /// temporary files.
    pub fn memory(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.memory = bytes.into();
        self
    }

    /// Says what to do with an earlier result at the output's path; by default, the run refuses to
    /// touch it.
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

    /// Spreads the run over ranks; by default, it is a single process.
    pub fn ranks(mut self, ranks: &'a dyn Communicator) -> Self {
        self.ranks = ranks;
        self
    }

    /// Sets the observer that receives progress events. Its error ends the run.
    pub fn observer(mut self, observer: Observer<'a>) -> Self {
        self.observer = observer;
        self
    }

    /// Tunes the model and writes the tuned checkpoint to the folder `output`, which appears only
    /// when it is complete.
    ///
    /// # Errors
    /// If an option does not exist or is out of its bounds, a model or the text cannot be read, the
    /// models do not belong together, the loss is not finite, or the output cannot be written; and
    /// the observer's own error.
    pub fn write(mut self, output: &Path) -> Result<TunedReport> {
        let started = Instant::now();
        let settings = TuneSettings::default().overlay(&self.asked)?;
        let environment = OnceCell::new();
        let hub = hub_or_environments(self.hub, &environment);
        let ranks = self.ranks;
        let pruned = open_model(&self.pruned, hub, ranks, &mut self.observer)?;
        let dense = open_model(&self.dense, hub, ranks, &mut self.observer)?;
        self.draw.more = settings.more_segments(self.draw.samples);
        let (segments, more) =
            self.draw.segments("tuning", &pruned, hub, ranks, &mut self.observer)?;
        let identity = self.identity(&settings, (&pruned, &dense), (&segments, &more))?;
        if self.existing.resume {
            let record = finished_before(output, &identity, ranks)?;
            if let Ok(tune) = TuneReport::deserialize(&record["tune"]) {
                self.observer.notify(Event::FinishedBefore)?;
                return Ok(self.report(output, started, tune));
            }
        }
        let mut out = Output::create(&pruned.checkpoint, output, &identity, self.existing, ranks)?;
        let layers = 0..pruned.shape().layers;
        let blocks = layers.map(|index| pruned.block(index)).collect::<Result<Vec<_>>>()?;
        let folder = out.run_folder().to_path_buf();
        let spilled = self.within_memory(&pruned, &blocks, &segments)?;
        let plan = TunePlan {
            pruned: &pruned,
            dense: &dense,
            segments: &segments,
            more: &more,
            settings: &settings,
            keep: Keep { state: self.state, spill: spilled.then_some(&*folder) },
            ranks,
        };
        let done = out.done().last().cloned();
        let tune = tune_model(&plan, blocks, done, &mut out, &mut self.observer)?;
        let finished = out.finish(&record(&pruned, &identity, &tune))?;
        if !finished.left_out().is_empty() {
            self.observer.notify(Event::LeftOut { paths: finished.left_out() })?;
        }
        finished.publish()?;
        Ok(self.report(output, started, tune))
    }

    /// Whether Adam's moments must go to files, so that the run stays within its memory.
    fn within_memory(
        &mut self,
        pruned: &Model,
        blocks: &[Block],
        segments: &Segments,
    ) -> Result<bool> {
        let text = (segments.tokens.len(), segments.seq_len);
        let sizes = Sizes::of(pruned, text, |index| 1.0 - layer_sparsity(&blocks[index]))?;
        let (spilled, needed) =
            within(self.memory, |spilled| Ok(PROGRAM + peak(sizes, self.state, spilled)))?;
        self.observer.notify(Event::Memory { needed, spilled })?;
        Ok(spilled)
    }

    fn report(&self, output: &Path, started: Instant, tune: TuneReport) -> TunedReport {
        TunedReport {
            model: self.pruned.clone(),
            dense: self.dense.clone(),
            output: output.display().to_string(),
            seconds: started.elapsed().as_secs_f64(),
            peak_rss_bytes: peak_rss_bytes(),
            tune,
        }
    }

    /// Everything that determines the result, in the part of the record that is tuning's.
    fn identity(
        &self,
        settings: &TuneSettings,
        (pruned, dense): (&Model, &Model),
        (segments, more): (&Segments, &Segments),
    ) -> Result<Value> {
        Ok(json!({"tuning": {
            "sparsellm": env!("CARGO_PKG_VERSION"),
            "input": {
                "sha256": pruned.checkpoint.digest()?,
                "config_sha256": pruned.checkpoint.config_digest(),
                "dense_sha256": dense.checkpoint.digest()?,
                "dense_config_sha256": dense.checkpoint.config_digest(),
                "calibration_sha256": segments.digest(),
                "further_sha256": more.digest(),
            },
            "settings": settings,
            "state": self.state,
            "calibration": {
                "samples": segments.count(),
                "seq_len": segments.seq_len,
                "seed": self.draw.seed,
            },
        }}))
    }
}

/// The record of the pruned checkpoint, if it has one, with that of tuning added.
fn record(pruned: &Model, identity: &Value, report: &TuneReport) -> Value {
    let before = read_json(&pruned.checkpoint.path.join(RECORD)).ok();
    let mut record = before.filter(Value::is_object).unwrap_or_else(|| json!({}));
    record["tuning"] = identity["tuning"].clone();
    record["tune"] = json!(report);
    record
}

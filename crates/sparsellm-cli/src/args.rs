//! The command line.

use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};
use sparsellm::{Method, Pattern, Result, find_method};
use sparsellm_eval::tasks::Task;
use sparsellm_prune::{Allocation, Scope, Solver, StateType, tune::TuneScope};
use sparsellm_tensor::Arithmetic;
use std::path::PathBuf;

/// Prunes pre-trained language models globally: SparseLLM, and the local
/// methods it is measured against.
#[derive(Parser)]
#[command(name = "sparsellm", version, about, propagate_version = true)]
pub struct Args {
    /// Threads to use [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// No network access: models by id only from the cache (as HF_HUB_OFFLINE=1)
    #[arg(long, global = true)]
    pub offline: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Prune a model and write the pruned checkpoint
    Prune(Box<Prune>),
    /// Tune what is kept of a pruned model until it predicts what the dense one does
    Tune(Tune),
    /// Measure a model's perplexity and its accuracy on zero-shot tasks
    Eval(Eval),
    /// Prune and measure a grid of models, methods and settings, and report
    Sweep(Sweep),
    /// Show a model's tensors, their sparsity and their N:M patterns
    Inspect(Inspect),
    /// Prune two small embedded models with every method and compare
    Demo(Demo),
}

/// How much is pruned: `--sparsity` or `--pattern`.
#[derive(clap::Args, Clone, Serialize)]
pub struct Amount {
    /// Fraction of the weights to remove, in [0, 1) [default: 0.7]
    #[arg(long, value_name = "F", value_parser = sparsity, conflicts_with = "pattern")]
    pub sparsity: Option<f64>,
    /// Remove N of every M consecutive weights, e.g. 2:4
    #[arg(long, value_name = "N:M", value_parser = pattern)]
    pub pattern: Option<String>,
}

impl Amount {
    /// The values that were given, by field name.
    pub fn asked(&self) -> Map<String, Value> {
        given(self)
    }

    /// The pattern that was asked for, or the default sparsity of 0.7.
    pub fn pattern(&self) -> Pattern {
        let asked = self.pattern.as_ref().and_then(|text| text.parse().ok());
        asked.unwrap_or(Pattern::Unstructured(self.sparsity.unwrap_or(0.7)))
    }
}

#[derive(clap::Args)]
pub struct Prune {
    /// A Hugging Face checkpoint folder, a .gguf file, or a model's id on the hub (org/name,
    /// org/name@revision)
    pub model: String,
    /// Folder to write the pruned checkpoint to
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// magnitude, wanda, sparsegpt, sparsellm (as published) or sparsellm-plus
    #[arg(long, default_value = "sparsellm-plus", value_name = "NAME", value_parser = method)]
    pub method: String,
    /// Calibration text (not needed for magnitude): wikitext2, ptb or c4 from the hub, or a file
    /// as for eval --data
    #[arg(long, value_name = "TEXT")]
    pub calibration: Option<String>,
    /// Field of a file's rows that holds their text or messages, for --calibration and --eval
    /// [default: the first of text, sentence, messages and conversations]
    #[arg(long, value_name = "NAME")]
    pub text_field: Option<String>,
    /// Calibration segments
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one)]
    pub samples: usize,
    /// Tokens per segment [default: 2048, or the model's positions if fewer]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub seq_len: Option<usize>,
    /// Seed of the segments' draw
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// Also measure perplexity before and after on these texts
    #[arg(long, num_args = 1.., value_name = "TEXT")]
    pub eval: Vec<String>,
    /// Measure on the first N windows only
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "eval")]
    pub max_windows: Option<usize>,
    /// Stay within this much memory, e.g. 12GB or 500MiB: if z, s and Adam's moments do not fit,
    /// they go to temporary files
    #[arg(long, value_name = "LIMIT", value_parser = bytes)]
    pub memory: Option<usize>,
    /// Also show where the time went: seconds, GFLOP/s and share of the machine's peak per phase
    #[arg(long)]
    pub profile: bool,
    /// Go on with an unfinished run from its last finished layer, to the same bytes
    #[arg(long)]
    pub resume: bool,
    /// Replace the output folder if it holds an earlier result; discard an unfinished run
    #[arg(long)]
    pub force: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// The library's settings, by field name. The values given here replace the method's defaults.
#[derive(clap::Args, Serialize)]
pub struct SettingsFlags {
    #[command(flatten)]
    #[serde(flatten)]
    pub amount: Amount,
    /// Keep every weight zero that is zero in MODEL; these count towards the sparsity, and the
    /// pattern adds the zeros that it still needs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub keep_zeros: Option<bool>,
    /// Decoder layers to prune, from A up to but not including B [default: all]
    #[arg(long, value_name = "A..B", value_parser = layers)]
    pub layers: Option<String>,
    /// SparseLLM's penalty of the linear constraints [default: 5 for gated networks, 0.1 for plain ones]
    #[arg(long, value_name = "F", value_parser = finite)]
    pub alpha: Option<f32>,
    /// SparseLLM's penalty of the activation constraint [default: 5 for gated networks, 0.1 for plain ones]
    #[arg(long, value_name = "F", value_parser = finite)]
    pub beta: Option<f32>,
    /// SparseLLM's epochs per layer [default: 4; 2 for sparsellm-plus]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub epochs: Option<usize>,
    /// Damping of the Hessians, relative to their mean diagonal [default: 0.01]
    #[arg(long, value_name = "F", value_parser = finite)]
    pub damping: Option<f32>,
    /// Columns per block of the OBS sweep [default: 128]
    #[arg(long, value_name = "N")]
    pub block_size: Option<usize>,
    /// Capture each group's inputs after the groups before it were pruned
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub true_sequential: Option<bool>,
    /// Also round the kept weights to this many bits (sparsegpt, sparsellm)
    #[arg(long, value_name = "B")]
    pub bits: Option<u32>,
    /// Keep SparseLLM's z and s, all that it holds per token, and Adam's moments as f32, or as bf16
    /// in half the memory
    /// [default: f32]
    #[arg(long, value_name = "f32|bf16", value_parser = parse::<StateType>)]
    pub state: Option<StateType>,
    #[command(flatten)]
    #[serde(flatten)]
    pub additions: Additions,
    /// Tune what is kept: each half of a block as soon as it is pruned (block), the whole model
    /// against the dense one after the last layer (global), or both
    /// [default: global for sparsellm-plus, none for other methods]
    #[arg(long, value_name = "none|block|global|both", value_parser = parse::<TuneScope>)]
    pub tune: Option<TuneScope>,
    /// The largest step of Adam on half-blocks [default: 0.002]
    #[arg(long, value_name = "F")]
    pub block_learning_rate: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub tuning: TuneFlags,
}

impl SettingsFlags {
    /// The values that were given, by field name.
    pub fn asked(&self) -> Map<String, Value> {
        given(self)
    }
}

/// The additions of `sparsellm-plus` to the published methods. Each has a switch of its own.
#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "What sparsellm-plus adds (for other methods: off unless asked for)")]
pub struct Additions {
    /// Finds each linear's mask and weights: obs (SparseGPT's sweep) or admm
    #[arg(long, value_name = "NAME", value_parser = parse::<Solver>)]
    pub solver: Option<Solver>,
    /// The solver chooses a mask within each block of columns (obs only), row, or the whole matrix
    #[arg(long, value_name = "SCOPE", value_parser = parse::<Scope>)]
    pub mask_scope: Option<Scope>,
    /// Conjugate-gradient steps of least squares on the kept weights, after any method [default: 0]
    #[arg(long, value_name = "STEPS")]
    pub refit: Option<usize>,
    /// How the linears share the sparsity: by what pruning them costs in the model's loss (measured),
    /// by their layer's share of outliers (owl, with the spread 0.08, or a number for another spread)
    /// or equally (uniform); N:M is always uniform
    #[arg(long, value_name = "uniform|owl|measured|F", value_parser = parse::<Allocation>)]
    pub allocation: Option<Allocation>,
    /// Solve the last linear again on the pruned first linears' true activations
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sequential_refit: Option<bool>,
    /// The output that the feed-forward network is fitted to: this layer's dense output (layer),
    /// the one that leads to the dense model's hidden states (dense), or a mix, from 0 to 1
    #[arg(long, value_name = "layer|dense|F", value_parser = target)]
    pub target: Option<f32>,
    /// How much a neuron's importance to the network's output weighs in the masks of gate, up and
    /// fc1, from 0 (off) to 1
    #[arg(long, value_name = "F", value_parser = neuron_weights)]
    pub neuron_weights: Option<f32>,
}

/// The options of tuning what is kept, by the names of their fields in `TuneSettings`.
#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "Tuning what is kept")]
pub struct TuneFlags {
    /// How often to go through the segments [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub tune_epochs: Option<usize>,
    /// The largest step of Adam through the whole model [default: 0.0007]
    #[arg(long, value_name = "F")]
    pub learning_rate: Option<f64>,
    /// How much the dense model's hidden states count beside its next-token probabilities, when
    /// the whole model is tuned [default: 10]
    #[arg(long, value_name = "F")]
    pub hidden_weight: Option<f64>,
    /// Segments per step [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// Number type of the factors in the products of gradients and logits [default: bf16]
    #[arg(long, value_name = "f32|bf16", value_parser = parse::<Arithmetic>)]
    pub arithmetic: Option<Arithmetic>,
}

impl TuneFlags {
    /// The values that were given, by field name.
    pub fn asked(&self) -> Map<String, Value> {
        given(self)
    }
}

#[derive(clap::Args)]
pub struct Tune {
    /// The pruned checkpoint: a folder, or a model's id on the hub
    pub model: String,
    /// The dense model that it was pruned from
    #[arg(long, value_name = "MODEL")]
    pub dense: String,
    /// Folder to write the tuned checkpoint to
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Text to tune on: wikitext2, ptb or c4 from the hub, or a file as for eval --data
    #[arg(long, value_name = "TEXT")]
    pub calibration: String,
    /// Field of a file's rows that holds their text or messages
    /// [default: the first of text, sentence, messages and conversations]
    #[arg(long, value_name = "NAME")]
    pub text_field: Option<String>,
    /// Segments to draw for each epoch, and an eighth as many to hold out
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one)]
    pub samples: usize,
    /// Tokens per segment [default: 2048, or the model's positions if fewer]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub seq_len: Option<usize>,
    /// Seed of the segments' draw
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    #[command(flatten)]
    pub settings: TuneFlags,
    /// Keep Adam's moments as f32, or as bf16 in half the memory
    #[arg(long, value_name = "f32|bf16", default_value = "f32", value_parser = parse::<StateType>)]
    pub state: StateType,
    /// Stay within this much memory, e.g. 12GB or 500MiB: if Adam's moments do not fit, they go to
    /// temporary files
    #[arg(long, value_name = "LIMIT", value_parser = bytes)]
    pub memory: Option<usize>,
    /// Go on with an unfinished run from its last finished epoch, to the same bytes
    #[arg(long)]
    pub resume: bool,
    /// Replace the output folder if it holds an earlier result; discard an unfinished run
    #[arg(long)]
    pub force: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Eval {
    /// A Hugging Face checkpoint folder, a .gguf file, or a model's id on the hub (org/name,
    /// org/name@revision)
    pub model: String,
    /// Texts to measure perplexity on: wikitext2, ptb or c4 from the hub, hf://datasets/ORG/NAME/PATH,
    /// or a .txt, .raw, .jsonl, .json.gz, .parquet or .npy file; wikitext2:FILE, ptb:FILE or c4:FILE
    /// takes the file as a split of that data set
    #[arg(long, required_unless_present = "tasks", num_args = 1.., value_name = "TEXT")]
    pub data: Vec<String>,
    /// Field of a file's rows that holds their text or messages
    /// [default: the first of text, sentence, messages and conversations]
    #[arg(long, value_name = "NAME", requires = "data")]
    pub text_field: Option<String>,
    /// Zero-shot tasks by lm-evaluation-harness's names, from the hub, from --task-data, or from a
    /// file: piqa,arc_easy:FILE
    #[arg(long, value_delimiter = ',', value_name = "TASK[:FILE]", value_parser = parse::<AskedTask>)]
    pub tasks: Vec<AskedTask>,
    /// Folder that holds the tasks' files; the name of each file starts with the name of its task
    #[arg(long, value_name = "DIR", requires = "tasks")]
    pub task_data: Option<PathBuf>,
    /// Ask the first N questions of each task only
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "tasks")]
    pub limit: Option<usize>,
    /// Write each question's outcome to this file, one JSON object a line
    #[arg(long, value_name = "FILE", requires = "tasks")]
    pub items: Option<PathBuf>,
    /// Tokens per window [default: 2048, or the model's positions if fewer]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub seq_len: Option<usize>,
    /// Measure on the first N windows only
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_windows: Option<usize>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Sweep {
    /// The recipe, a .toml file; recipes/ has some
    pub recipe: PathBuf,
    /// Folder for the results; runs that an interrupted sweep has finished there are not repeated
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Inspect {
    /// A Hugging Face checkpoint folder, a .gguf file, or a model's id on the hub (org/name,
    /// org/name@revision)
    pub model: String,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Demo {
    #[command(flatten)]
    pub amount: Amount,
    /// Seed of the calibration segments' draw
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// A task, and the file with its questions if one was named.
#[derive(Clone, Debug)]
pub struct AskedTask {
    pub task: Task,
    pub file: Option<PathBuf>,
}

impl std::str::FromStr for AskedTask {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, file) = match text.split_once(':') {
            Some((name, file)) => (name, Some(file.into())),
            None => (text, None),
        };
        Ok(AskedTask { task: name.parse()?, file })
    }
}

fn method(text: &str) -> std::result::Result<String, String> {
    find_method(text).map(|method| method.name().into()).map_err(|e| e.to_string())
}

fn pattern(text: &str) -> std::result::Result<String, String> {
    match text.parse()? {
        Pattern::NofM { .. } => Ok(text.into()),
        Pattern::Unstructured(_) => Err(format!("pattern {text:?} is not N:M; give --sparsity")),
    }
}

fn parse<T: std::str::FromStr<Err = String>>(text: &str) -> std::result::Result<T, String> {
    text.parse()
}

fn sparsity(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    Pattern::unstructured(value).map(|_| value).map_err(|e| e.to_string())
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number of at least 1 was expected".into()),
        Ok(n) => Ok(n),
    }
}

/// The flags that were given, by field name.
fn given(flags: &impl Serialize) -> Map<String, Value> {
    let Ok(Value::Object(mut given)) = serde_json::to_value(flags) else { return Map::new() };
    given.retain(|_, value| !value.is_null());
    given
}

/// Parses a finite number. Settings are passed on as JSON, which has no infinity and no NaN.
fn finite(text: &str) -> std::result::Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number.filter(|n| n.is_finite()).ok_or_else(|| "a number was expected".into())
}

fn neuron_weights(text: &str) -> std::result::Result<f32, String> {
    finite(text).map_err(|_| "--neuron-weights must be a number from 0 to 1".into())
}

fn target(text: &str) -> std::result::Result<f32, String> {
    match text {
        "layer" => Ok(0.0),
        "dense" => Ok(1.0),
        _ => finite(text).map_err(|_| "layer, dense or a number was expected".into()),
    }
}

/// Parses a number of bytes with its unit, such as `1.5GiB`.
fn bytes(text: &str) -> std::result::Result<usize, String> {
    let hint = || "a size was expected, e.g. 12GB, 1.5GiB or 500MB".to_string();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => f64::from(1 << 20),
        "gib" => f64::from(1 << 30),
        "tib" => 1024.0 * f64::from(1 << 30),
        _ => return Err(hint()),
    };
    let number: f64 = number.parse().map_err(|_| hint())?;
    Ok((number * unit) as usize)
}

/// Parses a number of threads. More than 1024 are taken for a typing error: they would exhaust
/// the machine.
fn threads(text: &str) -> std::result::Result<usize, String> {
    at_least_one(text).and_then(|n| if n <= 1024 { Ok(n) } else { Err("at most 1024".into()) })
}

fn layers(text: &str) -> std::result::Result<String, String> {
    let range = text.split_once("..").and_then(|(a, b)| {
        let range: std::ops::Range<usize> = a.parse().ok()?..b.parse().ok()?;
        Some(format!("{}..{}", range.start, range.end))
    });
    range.ok_or_else(|| "a range A..B was expected, e.g. 0..12".into())
}

impl Prune {
    /// The method that was named.
    pub fn method(&self) -> Result<&'static dyn Method> {
        find_method(&self.method)
    }
}

/// Splits `wikitext2:FILE` into `wikitext2:` and `FILE`. Without a colon, the first part is
/// empty.
pub fn split_prefix(name: &str) -> (&str, &str) {
    name.split_at(name.rfind(':').map_or(0, |colon| colon + 1))
}

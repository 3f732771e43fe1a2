//! The recipe of a sweep: which models are pruned, with which options, and on what the results
//! are measured.

use crate::args::{self, split_prefix};
use clap::Parser;
use serde::Deserialize;
use sparsellm::{Error, Result, label};
use std::{collections::BTreeMap, path::Path};
use toml::{Table, Value};

/// A value read from a grid, or a sentence that says what is wrong with the grid.
type Parsed<T> = std::result::Result<T, String>;

/// Options of `prune` that a grid cannot set, because the sweep decides them.
const OWN: [&str; 10] = [
    "output",
    "force",
    "resume",
    "json",
    "eval",
    "max-windows",
    "threads",
    "offline",
    "help",
    "version",
];

/// The most runs that a recipe may ask for. A recipe that asks for more is most likely a
/// mistake, and its runs would exhaust the memory.
const MOST_RUNS: usize = 4096;

/// A recipe as it is written in its file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The title of the report; without one, the name of the recipe's file.
    #[serde(default)]
    pub title: String,
    /// The texts and tasks that every model is measured on.
    #[serde(default)]
    pub evaluate: Evaluate,
    /// Options that apply to every grid that does not set them itself.
    #[serde(default)]
    defaults: Table,
    /// The grids. Each gives options of `prune` by name, with one value or a list of values, and
    /// asks for a run with every combination of them.
    #[serde(default)]
    grid: Vec<Table>,
}

/// The options of `eval` that the sweep measures with.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Evaluate {
    #[serde(default)]
    pub data: Vec<String>,
    pub text_field: Option<String>,
    pub seq_len: Option<usize>,
    pub max_windows: Option<usize>,
    #[serde(default)]
    pub tasks: Vec<String>,
    pub task_data: Option<String>,
    pub limit: Option<usize>,
}

/// One run of a sweep: one combination of a grid's values.
pub struct Cell {
    /// A short description of the run, unique within the sweep.
    pub name: String,
    /// The model's name in the report.
    pub model: String,
    /// The options that the run sets, by name, apart from the model, the method, and the sparsity
    /// or pattern.
    pub settings: BTreeMap<String, String>,
    /// The arguments of `prune` that carry out the run.
    pub args: Box<args::Prune>,
}

impl Recipe {
    /// Reads a recipe. Relative paths in it are looked up in the recipe's own folder first.
    ///
    /// # Errors
    /// If the file is not TOML or holds keys that no recipe has, with the line; or if it has no
    /// grid, or nothing to measure.
    pub fn read(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let invalid = |what: String| Error::Input(format!("{}: {what}", path.display()));
        let mut recipe: Recipe = toml::from_str(&text).map_err(|e| {
            let shown = e.to_string();
            // The message quotes the line, which may be of any length.
            let short = shown.len() < 1000;
            invalid(if short { shown.trim_end().into() } else { e.message().into() })
        })?;
        if recipe.grid.is_empty() {
            return Err(invalid("no [[grid]]: there is nothing to run".into()));
        }
        if recipe.evaluate.data.is_empty() && recipe.evaluate.tasks.is_empty() {
            return Err(invalid("no data and no tasks under [evaluate]".into()));
        }
        if recipe.title.is_empty() {
            recipe.title = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let evaluate = &mut recipe.evaluate;
        let named = evaluate.data.iter_mut().chain(&mut evaluate.tasks);
        named.chain(&mut evaluate.task_data).for_each(|name| *name = beside(folder, name));
        for table in recipe.grid.iter_mut().chain([&mut recipe.defaults]) {
            for key in ["model", "calibration"] {
                match table.get_mut(key) {
                    Some(Value::String(name)) => *name = beside(folder, name),
                    Some(Value::Array(names)) => names.iter_mut().for_each(|name| {
                        if let Value::String(name) = name {
                            *name = beside(folder, name);
                        }
                    }),
                    _ => {}
                }
            }
        }
        Ok(recipe)
    }

    /// The runs in the order of the recipe, except that all runs of a model follow each other.
    ///
    /// # Errors
    /// If `prune` does not take an option or a value, or there are too many runs; the message
    /// has the number of the grid.
    pub fn cells(&self) -> Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = Vec::new();
        for (i, grid) in self.grid.iter().enumerate() {
            let at = |what| Error::Usage(format!("recipe, grid {}: {what}", i + 1));
            let mut options = self.defaults.clone();
            options.extend(grid.clone());
            for combination in combinations(&options).map_err(at)? {
                let cell = cell(&combination).map_err(at)?;
                if cells.len() == MOST_RUNS {
                    return Err(at(format!("more than {MOST_RUNS} runs in all")));
                }
                // Grids may overlap; a run that two of them ask for is done once.
                if !cells.iter().any(|other| other.name == cell.name) {
                    cells.push(cell);
                }
            }
        }
        let first = cells.first().map(|cell| cell.settings.clone()).unwrap_or_default();
        let same = |key: &String| cells.iter().all(|c| c.settings.get(key) == first.get(key));
        let constant: Vec<&String> = first.keys().filter(|key| same(key)).collect();
        let names: Vec<String> = cells.iter().map(|cell| cell.spelled(&constant)).collect();
        cells.iter_mut().zip(names).for_each(|(cell, name)| cell.name = name);
        let order: Vec<String> = cells.iter().map(|cell: &Cell| cell.args.model.clone()).collect();
        cells.sort_by_key(|cell| order.iter().position(|model| *model == cell.args.model));
        Ok(cells)
    }
}

impl Cell {
    /// The run's model, method, sparsity or pattern, and settings, without those in `except`.
    fn spelled(&self, except: &[&String]) -> String {
        let settings = self.settings.iter().filter(|(key, _)| !except.contains(key));
        let settings = settings.map(|(key, value)| format!(" {key}={value}"));
        let (method, amount) = (&self.args.method, self.args.settings.amount.pattern());
        format!("{} {method} {amount}{}", self.model, settings.collect::<String>())
    }
}

/// The path of the file `name` in `folder`, or `name` itself if there is no such file. A prefix
/// that ends in a colon, as in `wikitext2:FILE`, is kept.
fn beside(folder: &Path, name: &str) -> String {
    let (before, file) = split_prefix(name);
    let path = folder.join(file);
    if path.exists() { format!("{before}{}", path.display()) } else { name.into() }
}

/// Every combination of the options' values. The model changes slowest. Sparsities and patterns
/// count as values of one option, because a run has either a sparsity or a pattern.
fn combinations(options: &Table) -> Parsed<Vec<Vec<(&str, String)>>> {
    let first = ["model", "method", "sparsity", "pattern"];
    if !options.contains_key("model") {
        return Err("no model".into());
    }
    let mut axes = [first[0], first[1]].map(|key| axis(options, key)).to_vec();
    axes.push(Ok([axis(options, "sparsity")?, axis(options, "pattern")?].concat()));
    let rest = options.keys().filter(|key| !first.contains(&key.as_str()));
    axes.extend(rest.map(|key| axis(options, key)));
    let mut out = vec![Vec::new()];
    for axis in axes {
        let axis = axis?;
        if axis.is_empty() {
            continue;
        }
        if out.len().saturating_mul(axis.len()) > MOST_RUNS {
            return Err(format!("more than {MOST_RUNS} runs; name fewer values"));
        }
        let mut longer = Vec::new();
        for so_far in &out {
            for value in &axis {
                let mut one: Vec<_> = so_far.clone();
                one.push(value.clone());
                longer.push(one);
            }
        }
        out = longer;
    }
    Ok(out)
}

/// The values of one option; none if the option is not given.
fn axis<'a>(options: &'a Table, key: &'a str) -> Parsed<Vec<(&'a str, String)>> {
    let Some(value) = options.get(key) else { return Ok(Vec::new()) };
    if OWN.contains(&key) {
        return Err(format!("{key} is not a grid's to say"));
    }
    let values = match value {
        Value::Array(values) if values.is_empty() => return Err(format!("{key} has no values")),
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    values.iter().map(|value| Ok((key, scalar(key, value)?))).collect()
}

/// A value as it is written on the command line.
fn scalar(key: &str, value: &Value) -> Parsed<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(f) => Ok(f.to_string()),
        Value::Boolean(b) => Ok(b.to_string()),
        other => Err(format!("{key} is {other}; a text, a number, true or false was expected")),
    }
}

/// The run that a combination asks for. The command line of `prune` reads the options, so that a
/// recipe takes every option that `prune` has.
fn cell(options: &[(&str, String)]) -> Parsed<Cell> {
    let mut line: Vec<String> = ["sparsellm", "prune", "--output=."].map(String::from).to_vec();
    let mut settings = BTreeMap::new();
    for (key, value) in options {
        match *key {
            "model" => line.push(value.clone()),
            _ => line.push(format!("--{key}={value}")),
        }
        match *key {
            "model" | "method" | "sparsity" | "pattern" => None,
            "calibration" => settings.insert((*key).into(), label(value)),
            _ => settings.insert((*key).into(), value.clone()),
        };
    }
    let args = match args::Args::try_parse_from(line).map(|args| args.command) {
        Ok(args::Command::Prune(args)) => args,
        Ok(_) => return Err("these are not options of prune".into()),
        Err(e) => {
            let text = e.to_string();
            let sentence = text.lines().next().unwrap_or_default();
            return Err(sentence.strip_prefix("error: ").unwrap_or(sentence).into());
        }
    };
    let mut cell = Cell { name: String::new(), model: label(&args.model), settings, args };
    cell.name = cell.spelled(&[]);
    Ok(cell)
}

//! A sweep's recipe: which models are pruned how, and what they are measured
//! on.

use crate::args::{self, split_prefix};
use clap::Parser;
use serde::Deserialize;
use sparsellm::{Error, Result, label};
use std::{collections::BTreeMap, path::Path};
use toml::{Table, Value};

/// What is wrong with a grid, in words.
type Parsed<T> = std::result::Result<T, String>;

/// Options of `prune` that belong to the sweep itself.
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

/// The most runs that a recipe may ask for. More are a mistake, and would exhaust the memory.
const MOST_RUNS: usize = 4096;

/// A recipe, as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Heads the report.
    #[serde(default)]
    pub title: String,
    /// What every model is measured on.
    #[serde(default)]
    pub evaluate: Evaluate,
    /// Options that every grid starts from.
    #[serde(default)]
    defaults: Table,
    /// Options of `prune` by name, each with a value or a list of them: every
    /// combination is a run.
    #[serde(default)]
    grid: Vec<Table>,
}

/// The options of `eval`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Evaluate {
    #[serde(default)]
    pub data: Vec<String>,
    pub seq_len: Option<usize>,
    pub max_windows: Option<usize>,
    #[serde(default)]
    pub tasks: Vec<String>,
    pub task_data: Option<String>,
    pub limit: Option<usize>,
}

/// One run.
pub struct Cell {
    /// The run in a few words, which no other run has.
    pub name: String,
    /// The model's name in the report.
    pub model: String,
    /// Every other option it sets but method and amount, by name.
    pub settings: BTreeMap<String, String>,
    /// All of it as `prune` takes it.
    pub args: Box<args::Prune>,
}

impl Recipe {
    /// Reads a recipe. Files that it names are looked for beside it first.
    ///
    /// # Errors
    /// Where it is no TOML, or says what no recipe says, with the line.
    pub fn read(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let invalid = |what: String| Error::Input(format!("{}: {what}", path.display()));
        let mut recipe: Recipe = toml::from_str(&text).map_err(|e| {
            let shown = e.to_string();
            // It shows the line, whatever its length.
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

    /// The runs, in order, each model's together.
    ///
    /// # Errors
    /// Where an option or a value is none of `prune`'s, with the grid's number.
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
                // Grids may overlap.
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
    /// Model, method, amount and settings, without those in `except`.
    fn spelled(&self, except: &[&String]) -> String {
        let settings = self.settings.iter().filter(|(key, _)| !except.contains(key));
        let settings = settings.map(|(key, value)| format!(" {key}={value}"));
        let (method, amount) = (&self.args.method, self.args.settings.amount.pattern());
        format!("{} {method} {amount}{}", self.model, settings.collect::<String>())
    }
}

/// `name`, or the file of that name in `folder` if there is one; what comes
/// before a colon (`wikitext2:FILE`) stays.
fn beside(folder: &Path, name: &str) -> String {
    let (before, file) = split_prefix(name);
    let path = folder.join(file);
    if path.exists() { format!("{before}{}", path.display()) } else { name.into() }
}

/// Every combination of the options' values, the model changing slowest.
/// Sparsities and patterns are values of one option: how much goes.
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

/// One option's values; none where it is left out.
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

/// A value as the command line has it.
fn scalar(key: &str, value: &Value) -> Parsed<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(f) => Ok(f.to_string()),
        Value::Boolean(b) => Ok(b.to_string()),
        other => Err(format!("{key} is {other}; a text, a number, true or false was expected")),
    }
}

/// One combination, read by `prune`'s own command line.
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
        Ok(_) => return Err("not options of prune".into()),
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

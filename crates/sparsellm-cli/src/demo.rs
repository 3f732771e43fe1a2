//! `sparsellm demo`: prunes two small models that ship with the command with every method.

use crate::args;
use crate::context::{print, print_json};
use serde_json::{Value, json};
use sparsellm::{Error, Evaluator, Model, Pruner, Result};
use sparsellm_prune::METHODS;
use std::{path::Path, time::Instant};

/// A file of an embedded model: its name and contents.
type Files = &'static [(&'static str, &'static [u8])];

macro_rules! embedded {
    ($folder:literal: $($file:literal),*) => {
        &[$(($file, include_bytes!(concat!("../../../assets/", $folder, "/", $file)))),*]
    };
}

const MODELS: [(&str, Files); 2] = [
    (
        "tiny-llama",
        embedded!("tiny-llama": "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ),
    (
        "tiny-opt",
        embedded!("tiny-opt": "config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json"),
    ),
];
const TEXTS: Files = embedded!("stories": "calibration.txt", "test.txt");

const SAMPLES: usize = 64;
const SEQ_LEN: usize = 256;

pub fn run(args: &args::Demo) -> Result<()> {
    let started = Instant::now();
    let folder = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    unpack(folder.path(), TEXTS)?;
    let pattern = args.amount.pattern();
    let mut results: Vec<Value> = Vec::new();
    let mut table = format!("{:12} {:>10}", "perplexity", "dense");
    METHODS.iter().for_each(|m| table.push_str(&format!(" {:>14}", m.name())));
    table.push('\n');
    for (name, files) in MODELS {
        unpack(&folder.path().join(name), files)?;
        results.push(prune_by_all(args, name, folder.path(), &mut table)?);
    }
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let pattern = pattern.to_string();
        return print_json(&json!({"pattern": pattern, "seconds": seconds, "results": results}));
    }
    print(&format!(
        "Two story-telling models pruned to {pattern}, perplexity on held-out stories (lower is better):\n\n{table}\n{seconds:.1} s\n"
    ))
}

/// Prunes the model in `home/name` with every method, and adds the model's row to the table.
fn prune_by_all(args: &args::Demo, name: &str, home: &Path, table: &mut String) -> Result<Value> {
    let model = Model::open(&home.join(name))?;
    let test = home.join("test.txt").to_string_lossy().into_owned();
    let calibration = Pruner::for_model(&model)
        .calibration(home.join("calibration.txt").to_string_lossy())
        .samples(SAMPLES)
        .seq_len(SEQ_LEN)
        .seed(args.seed)
        .draw_calibration()?;
    let measure = |model: &Model| Evaluator::new(model).seq_len(SEQ_LEN).perplexity(&test);
    let dense = measure(&model)?.perplexity;
    table.push_str(&format!("{name:12} {dense:>10.3}"));
    let mut methods = serde_json::Map::new();
    for method in METHODS {
        eprintln!("{name}: {} at {}", method.name(), args.amount.pattern());
        let output = home.join(format!("{name}-{}", method.name()));
        let report = Pruner::for_model(&model)
            .method(*method)
            .settings(args.amount.asked())
            .shared_calibration(calibration.as_ref())
            .write(&output)?;
        let pruned = measure(&Model::open(&output)?)?.perplexity;
        table.push_str(&format!(" {pruned:>14.3}"));
        let figures = json!({"perplexity": pruned, "sparsity": report.sparsity});
        methods.insert(method.name().into(), figures);
    }
    table.push('\n');
    Ok(json!({"model": name, "dense": dense, "methods": methods}))
}

fn unpack(folder: &Path, files: Files) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

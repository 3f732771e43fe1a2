//! `sparsellm demo`: two small models that ship with the command, pruned with
//! every method.

use crate::{args, print, print_json, prune::overall_sparsity};
use serde_json::{Value, json};
use sparsellm::{
    Error, Method, Model, Result, Settings, Tokenizer, Writer, checkpoint::Existing, perplexity,
    pipeline, ranks::Local, text::Source,
};
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
    Method::ALL.iter().for_each(|m| table.push_str(&format!(" {:>14}", m.name())));
    table.push('\n');
    for (name, files) in MODELS {
        let home = folder.path().join(name);
        unpack(&home, files)?;
        let model = Model::open(&home)?;
        let tokenizer = || Tokenizer::of(&model.checkpoint);
        let source = |file: &str| Source::file(&folder.path().join(file).to_string_lossy());
        let windows = source("test.txt")?.windows(SEQ_LEN, None, tokenizer)?;
        let calibration = pipeline::Calibration::new(
            source("calibration.txt")?.segments(SAMPLES, SEQ_LEN, args.seed, tokenizer)?,
        );
        let dense = perplexity(&model, &windows, &Local, |_, _| Ok(()))?.perplexity;
        table.push_str(&format!("{name:12} {dense:>10.3}"));
        let mut methods = serde_json::Map::new();
        for method in Method::ALL {
            eprintln!("{name}: {} at {pattern}", method.name());
            let settings = Settings { pattern, ..Settings::of(method) };
            let output = folder.path().join(format!("{name}-{}", method.name()));
            let run = json!({"method": method.name()});
            let existing = Existing::default();
            let mut writer = Writer::create(&model.checkpoint, &output, &run, existing, &Local)?;
            let layers = pipeline::prune(
                &model,
                Some(&calibration),
                &settings,
                None,
                &mut writer,
                &Local,
                &mut |_| Ok(()),
            )?;
            let finished = writer.finish(&run)?;
            let pruned = Model::open(finished.folder())?;
            let pruned = perplexity(&pruned, &windows, &Local, |_, _| Ok(()))?.perplexity;
            table.push_str(&format!(" {pruned:>14.3}"));
            let sparsity = overall_sparsity(&model, &layers);
            methods
                .insert(method.name().into(), json!({"perplexity": pruned, "sparsity": sparsity}));
        }
        table.push('\n');
        results.push(json!({"model": name, "dense": dense, "methods": methods}));
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

fn unpack(folder: &Path, files: Files) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

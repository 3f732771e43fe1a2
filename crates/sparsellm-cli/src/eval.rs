//! `sparsellm eval`.

use crate::{args, print, print_json, progress::Progress};
use serde_json::{Value, json};
use sparsellm::{
    Model, Result, Tokenizer,
    eval::Perplexity,
    perplexity,
    text::{Segments, Source},
};

pub fn run(args: &args::Eval) -> Result<()> {
    let model = args::open(&args.model)?;
    let texts = texts(&model, &args.data, args.seq_len, args.max_windows)?;
    let mut results: Vec<Value> = Vec::new();
    for (data, windows) in texts {
        let p = measure(&model, data, &windows)?;
        let seq_len = windows.seq_len;
        if !args.json {
            print(&format!(
                "{data}: perplexity {:.4} over {} windows of {seq_len} tokens\n",
                p.perplexity, p.windows
            ))?;
        }
        results.push(json!({
            "data": data,
            "perplexity": p.perplexity,
            "tokens": p.tokens,
            "windows": p.windows,
            "seq_len": seq_len,
        }));
    }
    if args.json {
        print_json(&json!({"model": args.model.display().to_string(), "results": results}))?;
    }
    Ok(())
}

/// The windows of each file. All are read before any is measured, so that a
/// bad one costs nothing.
pub fn texts<'a>(
    model: &Model,
    files: &'a [String],
    seq_len: Option<usize>,
    max_windows: Option<usize>,
) -> Result<Vec<(&'a str, Segments)>> {
    let seq_len = args::seq_len(model, seq_len)?;
    let windows = |file: &'a String| {
        let tokenizer = || Tokenizer::of(&model.checkpoint);
        let windows = Source::parse(file)?.windows(seq_len, max_windows, tokenizer)?;
        Ok((file.as_str(), windows))
    };
    files.iter().map(windows).collect()
}

/// Measures a model on windows of `data`, with progress.
pub fn measure(model: &Model, data: &str, windows: &Segments) -> Result<Perplexity> {
    let mut progress = Progress::new();
    perplexity(model, windows, |done, of| progress.layers(data, done, of))
}

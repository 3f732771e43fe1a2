//! `sparsellm eval`.

use crate::{args, print, print_json, progress::Progress};
use serde_json::{Value, json};
use sparsellm::{
    Result, Tokenizer, perplexity,
    text::{Segments, Source, Use},
};

pub fn run(args: &args::Eval) -> Result<()> {
    let model = args::open(&args.model)?;
    let seq_len = args::seq_len(&model, args.seq_len)?;
    // Every file is read before any is measured, so that a bad one costs nothing.
    let mut texts = Vec::new();
    for data in &args.data {
        let tokens =
            Source::parse(data)?.tokens(Use::Evaluation, || Tokenizer::of(&model.checkpoint))?;
        texts.push((data, Segments::windows(&tokens, seq_len, args.max_windows)?));
    }
    let mut results: Vec<Value> = Vec::new();
    for (data, windows) in texts {
        let mut progress = Progress::new();
        let p = perplexity(&model, &windows, |done, of| progress.layers(data, done, of))?;
        drop(progress);
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

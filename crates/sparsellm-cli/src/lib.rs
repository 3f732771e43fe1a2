//! The `sparsellm` command: arguments, progress, JSON, exit codes. The work is
//! the library's. (A library itself only so that it can be fuzzed.)

mod args;
mod demo;
mod eval;
mod inspect;
mod profile;
mod progress;
mod prune;
mod stop;
mod sweep;

use clap::Parser;
use sparsellm::{Error, Hub, Result};
use std::{io::Write, path::Path, process::ExitCode};

/// As much stack as the main thread has.
const STACK: usize = 8 << 20;

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    let threads = args.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build();
    let pool = match pool {
        Ok(pool) => pool,
        Err(e) => {
            eprintln!("error: cannot start {threads} threads: {e}");
            return ExitCode::from(1);
        }
    };
    let hub = Hub::from_env(args.offline);
    // One of the threads drives the run: from outside, each of many small
    // operations would wake a thread and wait for it.
    let result = pool.install(|| match args.command {
        args::Command::Prune(args) => prune::run(&args, &hub),
        args::Command::Eval(args) => eval::run(&args, &hub),
        args::Command::Sweep(args) => sweep::run(&args, &hub),
        args::Command::Inspect(args) => inspect::run(&args, &hub),
        args::Command::Demo(args) => demo::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(if matches!(e, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Prints to stdout; a reader that has gone away is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("stdout", e)),
        _ => Ok(()),
    }
}

/// Prints the one JSON document of `--json`.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&json_text(value)?)
}

/// JSON as people can read it.
fn json_text(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|e| Error::Invalid(format!("cannot write JSON: {e}")))
}

/// How many runs a sweep's recipe asks for.
///
/// # Errors
/// Where it is not a recipe.
pub fn runs_of_recipe(path: &Path) -> Result<usize> {
    Ok(sweep::Recipe::read(path)?.cells()?.len())
}

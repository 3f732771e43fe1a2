//! The `sparsellm` command: arguments, progress, JSON and exit codes. The crate `sparsellm` does
//! the work. This crate is a library, too, only so that the fuzz targets can call it.

mod args;
mod context;
mod demo;
mod eval;
mod fields;
mod inspect;
mod job;
mod profile;
mod progress;
mod prune;
mod stop;
mod sweep;
mod tune;

use clap::Parser;
use context::{Context, SILENT, silent};
use sparsellm::{Error, Hub, Result};
use std::{path::Path, process::ExitCode, sync::atomic::Ordering, time::Duration};

/// The stack of each thread, in bytes: as much as the main thread has.
const STACK: usize = 8 << 20;

/// How long a rank other than the first waits before it prints its error. If all ranks have the
/// same error, the first prints it and ends the others in the meantime.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let args = args::Args::try_parse();
    // A panic that becomes an error is reported once, as that error.
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !sparsellm_base::panics::is_guarded() {
            others(info);
        }
    }));
    let job = match job::join() {
        Ok(job) => job,
        Err(e) => {
            eprintln!("error: {}", fields::as_flags(&e.to_string()));
            return ExitCode::from(2);
        }
    };
    SILENT.store(job::world().rank() > 0, Ordering::Relaxed);
    let args = match args {
        Ok(args) => args,
        Err(e) => {
            if !silent() {
                let _ = e.print();
            }
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    let threads = args.threads.or(job.threads).unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build();
    let pool = match pool {
        Ok(pool) => pool,
        Err(e) => return failed(&Error::Input(format!("cannot start {threads} threads: {e}"))),
    };
    // A thread of the pool drives the run. A thread outside the pool would have to wake one of
    // the pool's threads, and wait for it, for each of many small operations.
    match pool.install(|| run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

fn run(args: args::Args) -> Result<()> {
    let context = Context { hub: Hub::from_env(args.offline), ranks: job::world() };
    match args.command {
        args::Command::Prune(args) => prune::run(&args, &context),
        args::Command::Eval(args) => eval::run(&args, &context),
        args::Command::Inspect(args) => inspect::run(&args, &context),
        _ if context.ranks.size() > 1 => Err(Error::Usage(
            "tune, sweep and demo run in one process; start prune and eval on several".into(),
        )),
        args::Command::Tune(args) => tune::run(&args, &context),
        args::Command::Sweep(args) => sweep::run(&args, &context),
        args::Command::Demo(args) => demo::run(&args),
    }
}

/// Prints an error, and ends all ranks.
fn failed(e: &Error) -> ExitCode {
    let status = if matches!(e, Error::Usage(_)) { 2 } else { 1 };
    let (ranks, e) = (job::world(), fields::as_flags(&e.to_string()));
    match (ranks.rank(), ranks.size()) {
        (_, 1) => eprintln!("error: {e}"),
        (0, _) => {
            eprintln!("error: {e}");
            ranks.abort(status);
        }
        (rank, size) => {
            std::thread::sleep(PATIENCE);
            eprintln!("error on rank {rank} of {size}: {e}");
            ranks.abort(status);
        }
    }
    ExitCode::from(status as u8)
}

/// The number of runs that the recipe of a sweep asks for.
///
/// # Errors
/// If the file is not a recipe.
pub fn runs_of_recipe(path: &Path) -> Result<usize> {
    Ok(sweep::Recipe::read(path)?.cells()?.len())
}
